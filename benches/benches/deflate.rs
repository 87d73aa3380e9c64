//! What does one compression of a publication cost, per level and size? Its result is shared by all subscribers.

use flate2::{Compress, Compression, FlushCompress};

fn main() {
    divan::main();
}

/// Readings as a dashboard gets them.
fn json(size: usize) -> Vec<u8> {
    let mut text = String::from("{\"readings\":[");
    let mut seed = 12345_u32;
    while text.len() < size {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.push_str(&format!(
            "{{\"sensor\":\"s{:03}\",\"value\":{:.3}}},",
            seed >> 24,
            f64::from(seed >> 12) / 1e4
        ));
    }
    text.truncate(size);
    text.into_bytes()
}

/// A pooled compressor, reset for each message: no context takeover.
#[divan::bench(args = [1, 3, 6, 9], consts = [256, 1024, 16384])]
fn level<const SIZE: usize>(bencher: divan::Bencher<'_, '_>, level: u32) {
    let message = json(SIZE);
    let mut compressor = Compress::new(Compression::new(level), false);
    let mut out = Vec::with_capacity(2 * SIZE + 64);
    bencher.counter(divan::counter::BytesCount::new(SIZE)).bench_local(|| {
        compressor.reset();
        out.clear();
        compressor.compress_vec(divan::black_box(&message), &mut out, FlushCompress::Sync)
    });
}

/// What making a compressor for each message would cost instead.
#[divan::bench]
fn fresh_compressor() -> Compress {
    Compress::new(Compression::new(1), false)
}

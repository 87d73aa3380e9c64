//! Any bytes as a record of the store (SEC-10): nothing panics, and what is a record is written as one that reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::store::record::Record;
use tidegate::store::{PublicationRecord, ReferenceRecord, SessionRecord, SubscriptionRecord};

fn check<R: Record + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(record) = R::decode(bytes) {
        assert_eq!(R::decode(&record.encode()).as_ref(), Ok(&record));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check::<PublicationRecord>(bytes);
    check::<ReferenceRecord>(bytes);
    check::<SessionRecord>(bytes);
    check::<SubscriptionRecord>(bytes);
});

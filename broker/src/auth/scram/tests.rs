//! Exchanges as conversations: the vector of RFC 7677 §3, a client that knows only the RFC, and clients that lie.

use std::collections::BTreeSet;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::users::line_with_salt;
use super::*;

const RFC_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const RFC_OURS: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const RFC_NONCE: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const RFC_SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const RFC_PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

fn users(text: &str) -> Result<Users, UsersError> {
    Users::parse(Path::new("users.scram"), text)
}

/// For these users, with the salt of RFC 7677 §3.
fn scram(users: &[(&str, &str)]) -> Scram {
    let salt = STANDARD.decode(RFC_SALT).unwrap();
    let line =
        |(name, password): &(&str, &str)| line_with_salt(name, password, ITERATIONS_MIN, &salt).unwrap();
    Scram::new(self::users(&users.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap())
}

/// The exchange of RFC 7677 §3 as far as the client's proof.
fn rfc_exchange() -> Exchange {
    scram(&[("user", "pencil")]).begin_with_nonce(RFC_FIRST.as_bytes(), RFC_OURS).unwrap().0
}

fn rfc_final(channel_binding: &str, nonce: &str, extensions: &str, proof: &str) -> String {
    format!("c={channel_binding},r={nonce}{extensions},p={proof}")
}

/// The client's side, written from RFC 5802 §3 alone.
struct Client {
    gs2_header: &'static str,
    bare: String,
    password: &'static str,
    /// Before the proof.
    extensions: &'static str,
}

impl Client {
    fn new(user: &str, password: &'static str) -> Self {
        let bare = format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL");
        Self { gs2_header: "n,,", bare, password, extensions: "" }
    }

    fn first(&self) -> String {
        format!("{}{}", self.gs2_header, self.bare)
    }

    /// Its last message, and the answer that it expects.
    fn last(&self, server_first: &str) -> (String, String) {
        let parts: Vec<&str> = server_first.splitn(3, ',').collect();
        let salt = STANDARD.decode(parts[1].strip_prefix("s=").unwrap()).unwrap();
        let iterations = parts[2].strip_prefix("i=").unwrap().parse().unwrap();
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(self.password.as_bytes(), &salt, iterations, &mut salted);
        let client_key = sign(&salted, "Client Key");
        let without_proof = format!("c={},{}{}", STANDARD.encode(self.gs2_header), parts[0], self.extensions);
        let auth_message = format!("{},{server_first},{without_proof}", self.bare);
        let signature = sign(&Sha256::digest(&client_key), &auth_message);
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, mask)| key ^ mask).collect();
        let server_signature = sign(&sign(&salted, "Server Key"), &auth_message);
        let last = format!("{without_proof},p={}", STANDARD.encode(proof));
        (last, format!("v={}", STANDARD.encode(server_signature)))
    }
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// A whole exchange. The server must prove itself to a client that it lets in.
fn login(scram: &Scram, client: &Client) -> Result<String, ScramError> {
    let (exchange, server_first) = scram.begin(client.first().as_bytes())?;
    let (last, expected) = client.last(std::str::from_utf8(&server_first).unwrap());
    let (user, server_final) = exchange.finish(last.as_bytes())?;
    assert_eq!(server_final, expected);
    Ok(user.into())
}

fn check_begin(first: &[u8], expected: Result<&str, ScramError>) {
    let scram = scram(&[("user", "pencil")]);
    let begun = scram.begin(first).map(|(exchange, _)| exchange.user.to_string());
    assert_eq!(begun, expected.map(str::to_owned), "{}", first.escape_ascii());
}

fn check_finish(last: &str, expected: Result<&str, ScramError>) {
    let finished = rfc_exchange().finish(last.as_bytes()).map(|(user, _)| user.to_string());
    assert_eq!(finished, expected.map(str::to_owned), "{last}");
}

// ---- what lets a client in ----

#[test]
fn the_example_of_rfc_7677_passes() {
    let scram = scram(&[("user", "pencil")]);
    let (exchange, server_first) = scram.begin_with_nonce(RFC_FIRST.as_bytes(), RFC_OURS).unwrap();
    assert_eq!(server_first, format!("r={RFC_NONCE},s={RFC_SALT},i=4096"));
    let last = rfc_final("biws", RFC_NONCE, "", RFC_PROOF);
    let (user, server_final) = exchange.finish(last.as_bytes()).unwrap();
    assert_eq!(&*user, "user");
    assert_eq!(server_final, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn a_client_that_knows_the_password_gets_in_as_its_user() {
    let scram = scram(&[("user", "pencil"), ("a,b=c", "x y"), ("\u{2168}", "I\u{ad}X"), ("müller:1", "ü")]);
    for (escaped, password, user) in [
        ("user", "pencil", "user"),
        ("a=2Cb=3Dc", "x y", "a,b=c"),
        // RFC 4013 §3: the soft hyphen is nothing, and a Roman nine is I and X.
        ("IX", "IX", "IX"),
        ("\u{2168}", "IX", "IX"),
        ("u\u{ad}ser", "pencil", "user"),
        ("mu\u{308}ller:1", "ü", "müller:1"),
    ] {
        assert_eq!(login(&scram, &Client::new(escaped, password)).as_deref(), Ok(user), "{escaped}");
    }
}

#[test]
fn a_client_may_say_more_than_it_must() {
    let scram = scram(&[("user", "pencil")]);
    let usual = || Client::new("user", "pencil");
    let bare = "n=user,r=abc,x=1,t=a=b".to_owned();
    for client in [
        Client { gs2_header: "y,,", ..usual() },
        Client { gs2_header: "n,a=user,", ..usual() },
        Client { gs2_header: "n,a=us\u{ad}er,", ..usual() },
        Client { bare, ..usual() },
        Client { extensions: ",x=1,Z=a=b", ..usual() },
    ] {
        assert_eq!(login(&scram, &client).as_deref(), Ok("user"), "{}", client.first());
    }
}

#[test]
fn each_exchange_has_a_nonce_of_its_own() {
    let scram = scram(&[("user", "pencil")]);
    let begun = |_| scram.begin(RFC_FIRST.as_bytes()).unwrap().0.nonce;
    let nonces: BTreeSet<String> = (0..100).map(begun).collect();
    assert_eq!(nonces.len(), 100);
    assert!(nonces.iter().all(|nonce| nonce.len() == "rOprNGfwEbeRWgbNEkqO".len() + 24), "{nonces:?}");
}

// ---- what does not ----

#[test]
fn a_wrong_password_an_unknown_user_and_an_empty_file_fail_alike() {
    let one = scram(&[("user", "pencil")]);
    let nobody = scram(&[]);
    for (scram, user, password) in [
        (&one, "user", "Pencil"),
        (&one, "user", ""),
        (&one, "resu", "pencil"),
        (&one, "User", "pencil"),
        (&nobody, "user", "pencil"),
    ] {
        assert_eq!(
            login(scram, &Client::new(user, password)),
            Err(ScramError::BadProof),
            "{user} {password}"
        );
    }
}

#[test]
fn an_unknown_user_looks_like_a_known_one_at_each_try() {
    let line = |name, iterations, salt: &[u8]| line_with_salt(name, "x", iterations, salt).unwrap();
    let text = [line("a", 4096, &[1; 12]), line("b", 5000, &[2; 24])].join("\n");
    let scram = Scram::new(users(&text).unwrap());
    let answer = |scram: &Scram, name: &str| {
        let (exchange, _) = scram.begin(format!("n,,n={name},r=abc").as_bytes()).unwrap();
        (exchange.credential.salt.to_vec(), exchange.credential.iterations)
    };
    let names: Vec<String> = (0..64).map(|at| format!("nobody{at}")).collect();
    let answers: Vec<_> = names.iter().map(|name| answer(&scram, name)).collect();
    assert_eq!(answers, names.iter().map(|name| answer(&scram, name)).collect::<Vec<_>>());
    let shapes: BTreeSet<_> = answers.iter().map(|(salt, iterations)| (salt.len(), *iterations)).collect();
    assert_eq!(shapes, BTreeSet::from([(12, 4096), (24, 5000)]));
    let salts: BTreeSet<_> = answers.iter().map(|(salt, _)| salt).collect();
    assert_eq!(salts.len(), names.len());
    // Another start has another secret.
    assert_ne!(answer(&Scram::new(users(&text).unwrap()), "nobody0").0, answer(&scram, "nobody0").0);
    assert_eq!(answer(&Scram::new(Users::default()), "nobody0").1, ITERATIONS_USUAL);
}

#[test]
fn a_made_up_credential_accepts_no_proof_even_with_the_right_keys() {
    let client = Client::new("ghost", "pencil");
    let (mut exchange, server_first) = scram(&[]).begin(client.first().as_bytes()).unwrap();
    let credential = Credential::new("pencil", &exchange.credential.salt, exchange.credential.iterations);
    exchange.credential = credential;
    let (last, _) = client.last(std::str::from_utf8(&server_first).unwrap());
    assert_eq!(exchange.finish(last.as_bytes()).unwrap_err(), ScramError::BadProof);
}

#[test]
fn a_proof_counts_only_in_its_own_exchange() {
    let scram = scram(&[("user", "pencil")]);
    let client = Client::new("user", "pencil");
    let (_, server_first) = scram.begin(client.first().as_bytes()).unwrap();
    let (last, _) = client.last(std::str::from_utf8(&server_first).unwrap());
    let (second, _) = scram.begin(client.first().as_bytes()).unwrap();
    assert_eq!(second.finish(last.as_bytes()).unwrap_err(), ScramError::OtherNonce);
}

#[test]
fn a_tampered_last_message_fails() {
    let short = RFC_NONCE.trim_end_matches('0');
    let other = RFC_PROOF.replace('d', "e");
    let malformed = ScramError::Malformed;
    for (last, error) in [
        (rfc_final("biws", "rOprNGfwEbeRWgbNEkqO", "", RFC_PROOF), ScramError::OtherNonce),
        (rfc_final("biws", short, "", RFC_PROOF), ScramError::OtherNonce),
        (rfc_final("biws", &format!("{RFC_NONCE}x"), "", RFC_PROOF), ScramError::OtherNonce),
        // `y,,` under a proof that began with `n,,`: somebody between took our channel binding away.
        (rfc_final("eSws", RFC_NONCE, "", RFC_PROOF), ScramError::ChannelBindingsDiffer),
        (rfc_final("biw", RFC_NONCE, "", RFC_PROOF), ScramError::ChannelBindingsDiffer),
        (rfc_final("biws", RFC_NONCE, "", &other), ScramError::BadProof),
        (rfc_final("biws", RFC_NONCE, ",x=1", RFC_PROOF), ScramError::BadProof),
        (rfc_final("biws", RFC_NONCE, ",m=1", RFC_PROOF), ScramError::ExtensionUnsupported),
        (rfc_final("biws", RFC_NONCE, ",r=1", RFC_PROOF), malformed("an extension is not one")),
        (rfc_final("biws", RFC_NONCE, ",xx=1", RFC_PROOF), malformed("an extension is not one")),
        (rfc_final("biws", RFC_NONCE, ",1=1", RFC_PROOF), malformed("an extension is not one")),
        (rfc_final("biws", RFC_NONCE, ",x", RFC_PROOF), malformed("an extension is not one")),
        (rfc_final("biws", RFC_NONCE, ",x=", RFC_PROOF), malformed("an extension is not one")),
        (rfc_final("biws", RFC_NONCE, ",", RFC_PROOF), malformed("an extension is not one")),
        (rfc_final("biws", RFC_NONCE, "", "dHzb"), malformed("the proof is not 32 bytes in base64")),
        (
            rfc_final("biws", RFC_NONCE, "", RFC_PROOF.trim_end_matches('=')),
            malformed("the proof is not 32 bytes in base64"),
        ),
        (rfc_final("biws", RFC_NONCE, "", ""), malformed("an attribute is missing or out of place")),
        (rfc_final("", RFC_NONCE, "", RFC_PROOF), malformed("an attribute is missing or out of place")),
        (format!("r={RFC_NONCE},c=biws,p={RFC_PROOF}"), malformed("an attribute is missing or out of place")),
        (format!("c=biws,r={RFC_NONCE}"), malformed("an attribute is missing or out of place")),
        ("c=biws".to_owned(), malformed("no proof")),
        (String::new(), malformed("no proof")),
        ("x".repeat(MESSAGE_BYTES_MAX + 1), ScramError::TooLong),
    ] {
        check_finish(&last, Err(error));
    }
    check_finish(&rfc_final("biws", RFC_NONCE, "", RFC_PROOF), Ok("user"));
}

#[test]
fn a_first_message_that_is_not_one_is_refused() {
    let malformed = ScramError::Malformed;
    let out_of_place = || malformed("an attribute is missing or out of place");
    let long = |count| format!("n,,n=user,r={}", "x".repeat(count - "n,,n=user,r=".len()));
    for (first, expected) in [
        ("", Err(malformed("no gs2-header"))),
        ("n", Err(malformed("no gs2-header"))),
        ("n,", Err(malformed("no gs2-header"))),
        ("n,,", Err(out_of_place())),
        ("n=user,r=abc", Err(malformed("no gs2-header"))),
        ("n=user,r=abc,x=1", Err(malformed("the gs2-header begins with neither n, y nor p="))),
        ("N,,n=user,r=abc", Err(malformed("the gs2-header begins with neither n, y nor p="))),
        (",,n=user,r=abc", Err(malformed("the gs2-header begins with neither n, y nor p="))),
        ("F,n,,n=user,r=abc", Err(malformed("the gs2-header begins with neither n, y nor p="))),
        ("p=tls-unique,,n=user,r=abc", Err(ScramError::ChannelBindingUnsupported)),
        ("p=,,n=user,r=abc", Err(ScramError::ChannelBindingUnsupported)),
        ("n,a=other,n=user,r=abc", Err(ScramError::OtherIdentity)),
        ("n,a=,n=user,r=abc", Err(out_of_place())),
        ("n,user,n=user,r=abc", Err(out_of_place())),
        ("n,,m=1,n=user,r=abc", Err(ScramError::ExtensionUnsupported)),
        ("n,,n=user,r=abc,m=1", Err(ScramError::ExtensionUnsupported)),
        ("n,,n=user,r=abc,n=root", Err(malformed("an extension is not one"))),
        ("n,,n=user,r=abc,", Err(malformed("an extension is not one"))),
        ("n,,n=user,r=abc,ü=1", Err(malformed("an extension is not one"))),
        ("n,,r=abc,n=user", Err(out_of_place())),
        ("n,,n=user", Err(out_of_place())),
        ("n,,n=,r=abc", Err(out_of_place())),
        ("n,,n=user,r=", Err(out_of_place())),
        ("n,,n=us=er,r=abc", Err(malformed("the name has a '=' without 2C or 3D behind it"))),
        ("n,,n=user=,r=abc", Err(malformed("the name has a '=' without 2C or 3D behind it"))),
        ("n,,n=user=2c,r=abc", Err(malformed("the name has a '=' without 2C or 3D behind it"))),
        ("n,,n=user=2C=3D,r=abc", Ok("user,=")),
        ("n,,n=us\ner,r=abc", Err(ScramError::BadName)),
        ("n,,n=\u{ad},r=abc", Err(ScramError::BadName)),
        ("n,,n=\u{e000},r=abc", Err(ScramError::BadName)),
        ("n,,n=us\0er,r=abc", Err(malformed("a NUL"))),
        ("n,,n=user,r=a c", Err(malformed("the nonce has a character that is not printable"))),
        ("n,,n=user,r=aüc", Err(malformed("the nonce has a character that is not printable"))),
        ("n,,n=user,r=a=c", Ok("user")),
        (&long(MESSAGE_BYTES_MAX + 1), Err(ScramError::TooLong)),
        (&long(MESSAGE_BYTES_MAX), Ok("user")),
    ] {
        check_begin(first.as_bytes(), expected);
    }
    check_begin(b"n,,n=us\xFFer,r=abc", Err(malformed("not UTF-8")));
}

#[test]
fn the_longest_name_fits_escaped_and_twice() {
    let name = "=".repeat(NAME_BYTES_MAX);
    let escaped = name.replace('=', "=3D");
    let first = format!("n,a={escaped},n={escaped},r={}", "x".repeat(128));
    check_begin(first.as_bytes(), Ok(&name));
}

#[test]
fn what_is_printed_for_a_log_holds_no_secret() {
    let (exchange, _) = scram(&[("user", "pencil")]).begin(RFC_FIRST.as_bytes()).unwrap();
    let text = format!("{:?} {exchange:?} {:?}", scram(&[("user", "pencil")]), exchange.credential);
    assert_eq!(
        text,
        "Scram { users: Users { len: 1, .. }, .. } Exchange { .. } Credential { iterations: 4096, .. }"
    );
}

// ---- the file ----

const LINE: &str = "user:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

fn check_line(line: &str, expected: &str) {
    let error = users(&format!("# users\n\n{line}\n")).unwrap_err();
    assert_eq!(error.to_string(), format!("users.scram:3: {expected}"), "{line}");
}

#[test]
fn a_line_is_what_postgresql_keeps() {
    let salt = STANDARD.decode(RFC_SALT).unwrap();
    assert_eq!(line_with_salt("user", "pencil", 4096, &salt).as_deref(), Ok(LINE));
}

#[test]
fn comments_and_empty_lines_are_nobody() {
    for (text, count) in [
        ("", 0),
        ("\n\r\n  \n# nobody\n  # nobody\n", 0),
        (LINE, 1),
        (&format!("# one\r\n{LINE}\r\n"), 1),
        (&format!("{LINE}\nb{LINE}\n"), 2),
    ] {
        let users = users(text).unwrap();
        assert_eq!((users.len(), users.is_empty()), (count, count == 0), "{text:?}");
    }
}

#[test]
fn a_line_that_is_made_reads_back_and_each_has_a_salt_of_its_own() {
    for name in ["user", "a,b=c", "a:SCRAM-SHA-256$b", "müller", "a b", &"x".repeat(NAME_BYTES_MAX)] {
        let [one, other] = [(); 2].map(|()| user_line(name, "pencil", ITERATIONS_MIN).unwrap());
        assert_ne!(one, other);
        let scram = Scram::new(users(&one).unwrap());
        let escaped = name.replace('=', "=3D").replace(',', "=2C");
        assert_eq!(login(&scram, &Client::new(&escaped, "pencil")).as_deref(), Ok(name));
    }
}

#[test]
fn a_malformed_line_is_named_by_file_and_number() {
    let form =
        "a line is name:SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey; `tidegate scram NAME` prints one";
    let iterations = "the iterations must be 4096 to 1000000";
    let salt = "the salt must be 8 to 32 bytes in base64";
    let name = "the user name is empty or has characters that SASLprep (RFC 4013) forbids";
    for (line, expected) in [
        ("user", form),
        ("user:pencil", form),
        ("user:SCRAM-SHA-1$4096:AA==$AA==:AA==", form),
        ("user:SCRAM-SHA-256$4096", form),
        ("user:SCRAM-SHA-256$4096$AA==:AA==", form),
        (&LINE.replace("qY=:", "qY="), form),
        (&LINE.replace("user", ""), name),
        (&LINE.replace("user", "us\u{7}er"), name),
        (&LINE.replace("user", "us\u{e000}er"), name),
        (&LINE.replace("user", &"x".repeat(NAME_BYTES_MAX + 1)), "the user name has more than 256 bytes"),
        (
            &LINE.replace("user", "user "),
            "the user name begins with '#' or has a space at an end, which the file does not keep",
        ),
        (&LINE.replace("4096", "4095"), iterations),
        (&LINE.replace("4096", "1000001"), iterations),
        (&LINE.replace("4096", "99999999999"), iterations),
        (&LINE.replace("4096", "-1"), iterations),
        (&LINE.replace("4096", ""), iterations),
        (&LINE.replace(RFC_SALT, ""), salt),
        (&LINE.replace(RFC_SALT, "W22ZaJ0SNQ=="), salt),
        (&LINE.replace(RFC_SALT, "not base64"), salt),
        (&LINE.replace(RFC_SALT, &STANDARD.encode([0; 33])), salt),
        (&LINE.replace("WG5d8o", "WG5d"), "StoredKey must be 32 bytes in base64"),
        (&LINE.replace("wfPLwc", "wfPL"), "ServerKey must be 32 bytes in base64"),
        (&format!("{LINE}="), "ServerKey must be 32 bytes in base64"),
        (&format!("{LINE}:x"), "ServerKey must be 32 bytes in base64"),
    ] {
        check_line(line, expected);
    }
}

#[test]
fn two_lines_for_one_user_are_an_error_also_when_they_only_look_the_same() {
    for second in ["user", "us\u{ad}er"] {
        let text = format!("{LINE}\n# again\n{}", LINE.replace("user", second));
        let message = users(&text).unwrap_err().to_string();
        assert_eq!(message, "users.scram:3: line 1 is about the same user");
    }
}

#[test]
fn what_cannot_be_a_name_or_a_password_is_said_when_the_line_is_made() {
    for (name, password, error) in [
        ("", "x", SecretError::Name),
        ("a\nb", "x", SecretError::Name),
        ("#a", "x", SecretError::Unwritable),
        (" a", "x", SecretError::Unwritable),
        ("a\u{a0}", "x", SecretError::Unwritable),
        ("a", "", SecretError::Password),
        ("a", "\u{3}", SecretError::Password),
        ("a", "\u{1f511}", SecretError::Password),
    ] {
        assert_eq!(user_line(name, password, ITERATIONS_MIN), Err(error), "{name:?} {password:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.scram");
    let error = Users::load(&file).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot read {}: ", file.display())), "{error}");
    std::fs::write(&file, [0xFF]).unwrap();
    let error = Users::load(&file).unwrap_err().to_string();
    assert!(error.contains("UTF-8"), "{error}");
    std::fs::write(&file, LINE).unwrap();
    assert_eq!(Users::load(&file).unwrap().len(), 1);
}

// ---- properties ----

proptest::proptest! {
    #[test]
    fn no_bytes_panic(first in proptest::collection::vec(proptest::num::u8::ANY, 0..64), last: Vec<u8>) {
        let _ = scram(&[]).begin(&first);
        let _ = scram(&[]).begin(RFC_FIRST.as_bytes()).unwrap().0.finish(&last);
    }

    #[test]
    fn no_message_of_familiar_parts_panics_or_gets_in(
        first in "(n,|y,|p=|,|a=|n=|r=|m=|=2C|=3D|=|user|.){0,16}",
        last in "(c=biws|,|r=|x=|p=|=|user|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=|.){0,12}",
    ) {
        if let Ok((exchange, _)) = scram(&[]).begin(first.as_bytes()) {
            let with_nonce = format!("c={},r={},{last}", exchange.channel_binding, exchange.nonce);
            assert!(exchange.finish(with_nonce.as_bytes()).is_err());
        }
        let (exchange, _) = scram(&[]).begin(RFC_FIRST.as_bytes()).unwrap();
        assert!(exchange.finish(last.as_bytes()).is_err());
    }

    #[test]
    fn no_file_panics(text in "(user|:SCRAM-SHA-256\\$|4096|:|\\$|W22ZaJ0SNY7soEsUEjb6gQ==|#|\n|.){0,16}") {
        let _ = users(&text);
    }

    #[test]
    fn every_name_survives_its_escapes(name in "[a-z,=]{1,32}") {
        let escaped = name.replace('=', "=3D").replace(',', "=2C");
        let (exchange, _) = scram(&[]).begin(format!("n,,n={escaped},r=abc").as_bytes()).unwrap();
        assert_eq!(&*exchange.user, name);
    }
}

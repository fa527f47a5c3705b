//! What a WebDAV client sends: XML, the field `If`, and addresses of files.

use portreeve_files::Address;
use portreeve_files::address::segments;

/// The first byte says which of them.
pub fn webdav(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 3 {
        0 => portreeve_dav::fuzz::xml(data),
        1 => {
            if let Ok(text) = std::str::from_utf8(data) {
                portreeve_dav::fuzz::if_field(text);
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            let Ok(Address { path: Some(path), .. }) = Address::parse(text) else { return };
            assert!(
                !path.as_bytes().split(|byte| *byte == b'/').any(|name| matches!(name, b"" | b"." | b".."))
            );
            let again = Address::parse(&segments(&path)).expect("what is written is an address");
            assert_eq!(again.path, Some(path));
        }
    }
}

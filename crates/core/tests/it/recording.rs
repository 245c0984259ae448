//! What is read is what was written.

use proptest::prelude::*;
use vswap_core::recording::{Coder, LONGEST, Recorded, Why};

fn faults() -> impl Strategy<Value = Vec<Recorded>> {
    let why = prop_oneof![Just(Why::First), Just(Why::Staged), Just(Why::Out), Just(Why::Write)];
    let page = prop_oneof![0u64..1 << 52, 1_000u64..1_100];
    let space = prop_oneof![0u32..3, any::<u32>()];
    let fault = (page, space, why).prop_map(|(page, space, why)| Recorded { page, space, why });
    prop::collection::vec(fault, 0..100)
}

proptest! {
    #![proptest_config(crate::cases(256))]

    #[test]
    fn what_is_read_is_what_was_written(faults in faults()) {
        let (mut writer, mut file) = (Coder::default(), Vec::new());
        for fault in &faults {
            let mut bytes = [0; LONGEST];
            let len = writer.write(*fault, &mut bytes);
            file.extend_from_slice(&bytes[..len]);
        }
        let (mut reader, mut at) = (Coder::default(), 0);
        for fault in &faults {
            let (read, len) = reader.read(&file[at..]).unwrap();
            prop_assert_eq!(read, *fault);
            at += len;
        }
        prop_assert_eq!(at, file.len());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let (mut reader, mut at) = (Coder::default(), 0);
        while let Ok((_, len)) = reader.read(&bytes[at..]) {
            prop_assert!(len > 0 && len <= LONGEST + 2);
            at += len;
        }
    }
}

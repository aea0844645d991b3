use super::*;
use std::ffi::OsString;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

#[test]
fn smoke() {
    let link = parse(words("-m elf_x86_64 -r -o vmlinux.o --whole-archive vmlinux.a")).unwrap();
    assert_eq!(link.output, std::path::Path::new("vmlinux.o"));
}

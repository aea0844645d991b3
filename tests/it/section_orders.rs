//! Scripts that name sections one by one, as the kernel's for its initcalls does.

use std::fmt::Write as _;
use std::fs;

use crate::space::{TestSpace, llvms};

/// Sections in each file.
const EACH: usize = 12;

/// A file with sections `.order.NAME_0` and so on, each with a relocation in it.
fn source(name: &str) -> String {
    let mut text = format!("static int work_{name}(void) {{ return {}; }}\n", name.len());
    for at in 0..EACH {
        _ = writeln!(
            text,
            "__attribute__((section(\".order.{name}_{at}\"), used)) \
             static int (*entry_{name}_{at})(void) = work_{name};"
        );
    }
    text
}

/// `.order.NAME_0` and so on.
fn names(of: &[&str]) -> Vec<String> {
    of.iter().flat_map(|name| (0..EACH).map(move |at| format!(".order.{name}_{at}"))).collect()
}

/// A script that has these in order, in two output sections.
fn script(names: &[String]) -> String {
    let mut text = String::from("SECTIONS {\n");
    for (output, names) in ["early", "late"].into_iter().zip(names.chunks(names.len().div_ceil(2)))
    {
        _ = writeln!(text, "\t.order.{output} : {{");
        for name in names {
            _ = writeln!(text, "\t\t*({name}) ;");
        }
        text.push_str("\t}\n");
    }
    text + "}\n"
}

/// Modules `one`, `two` and `four`, and between them a native `three` and an archive with `five`.
fn space(llvm: u32) -> TestSpace {
    let space = TestSpace::with_llvm(llvm);
    for name in ["one", "two", "four"] {
        space.compile("", &[(&format!("{name}.c"), &source(name))]);
    }
    for name in ["three", "five"] {
        space.write(&format!("{name}.c"), source(name));
        space.real(&format!("clang -O2 -fPIE -c {name}.c")).ok();
    }
    space.real("llvm-ar rcs libfive.a five.o").ok();
    space
}

const INPUTS: &str = "one.o three.o two.o --whole-archive libfive.a --no-whole-archive four.o";
const NATIVE: &str = "kept/native/0001.o three.o kept/native/0002.o --whole-archive libfive.a \
                      --no-whole-archive kept/native/0003.o";
const IN_PLACE: [&str; 5] = ["one", "three", "two", "five", "four"];

/// Links by `order.lds`, as `inputs` has it, and the same native objects by lld alone: the same bytes. Returns the
/// number of descriptions in the script that lld was given instead, 0 for the user's own.
#[track_caller]
fn descriptions(space: &TestSpace, names: &[String], inputs: &str, natives: &str) -> usize {
    let _ = fs::remove_dir_all(space.path("kept"));
    space.write("order.lds", script(names));
    let run = space.strict(&format!("ld.lld -r -T order.lds {inputs} -o out.o"));
    run.env("THINSHIM_KEEP", "kept").ok();
    space.real(&format!("ld.lld -r -T order.lds {natives} -o plain.o")).ok();
    assert!(
        space.read("out.o") == space.read("plain.o"),
        "other bytes: {}",
        space.root().display()
    );
    let kept = space.exists("kept/order.lds");
    if kept { space.text("kept/order.lds").matches("*(").count() } else { 0 }
}

#[test]
fn sections_in_order_are_found_at_once() {
    for llvm in llvms() {
        let space = space(llvm);
        let mut names = names(&IN_PLACE);
        assert_eq!(descriptions(&space, &names, INPUTS, NATIVE), 4, "LLVM {llvm}");
        // What nobody has, at the ends and in the middle.
        for (at, name) in [(60, "z"), (30, "y"), (29, "x"), (0, "w")] {
            names.insert(at, format!(".order.none_{name}"));
        }
        assert_eq!(descriptions(&space, &names, INPUTS, NATIVE), 5, "LLVM {llvm}");
        // What is called as an output goes behind the last description, which nobody has a section for.
        for late in ["\"a\"", "\"ao\",@progbits,.text"] {
            space.write(
                "late.s",
                format!(".section .order.late,{late}\n.quad 0x1234\n.text\nnop\n"),
            );
            space.real("clang -c late.s").ok();
            let with = |inputs: &str| format!("{inputs} late.o");
            assert_eq!(
                descriptions(&space, &names, &with(INPUTS), &with(NATIVE)),
                5,
                "LLVM {llvm}"
            );
        }
    }
}

#[test]
fn sections_out_of_order_are_put_in_order() {
    for llvm in llvms() {
        let space = space(llvm);
        let all = names(&["five", "one", "two", "four", "three"]);
        let found = descriptions(&space, &all, INPUTS, NATIVE);
        assert_eq!(found, 6, "LLVM {llvm}: one goes back to five, three to four");
        let mut reversed = names(&IN_PLACE);
        reversed.reverse();
        assert_eq!(descriptions(&space, &reversed, INPUTS, NATIVE), reversed.len());
    }
}

/// Whatever makes a section's place uncertain leaves the script as it is.
#[test]
fn sections_in_doubt_are_left_to_the_script() {
    for llvm in llvms() {
        let space = space(llvm);
        let all = names(&IN_PLACE);
        let left = |inputs: &str, natives: &str| {
            assert_eq!(descriptions(&space, &all, inputs, natives), 0, "LLVM {llvm}: {inputs}");
        };
        let of = |first: &str, rest: &str| {
            let inputs = format!("{first} one.o {rest} two.o four.o");
            let natives =
                format!("{first} kept/native/0001.o {rest} kept/native/0002.o kept/native/0003.o");
            left(&inputs, &natives);
        };
        // Members that are linked only if something needs them.
        of("", "three.o libfive.a");
        of("", "three.o --start-lib five.o --end-lib");
        // Twice the same name, and another order than that of the inputs.
        of("three.o", "three.o");
        of("--sort-section=name", "three.o");
        space.write("symbols", "entry_four_2\nentry_one_3\n");
        of("--symbol-ordering-file=symbols", "three.o");
        // Sections that the linker may drop, merge or move.
        for (flags, what) in
            [("aG", "progbits,group,comdat"), ("aMS", "progbits,1"), ("ao", "progbits,.text")]
        {
            space.write(
                "odd.s",
                format!(".text\nnop\n.section .order.five_3,\"{flags}\",@{what}\n.asciz \"x\"\n"),
            );
            space.real("clang -c odd.s").ok();
            of("", "three.o odd.o");
        }
        // A file that names the scripts.
        space.write("order.lds", script(&all));
        let inputs = "one.o three.o two.o four.o --dependency-file=words.d";
        space.strict(&format!("ld.lld -r -T order.lds {inputs} -o out.o")).ok();
        let words = space.text("words.d");
        assert!(words.contains(" order.lds") && !words.contains("/order.lds"), "{words}");
        // Another script, and one that is more than an order.
        space.write("more.lds", "SECTIONS { .more : { *(.order.five*) } }");
        of("-T more.lds", "three.o");
        let few = names(&["one", "two"]);
        assert_eq!(descriptions(&space, &few, INPUTS, NATIVE), 0, "too few to be worth it");
        let mut pattern = all.clone();
        pattern.push(".order.fi*".to_owned());
        assert_eq!(descriptions(&space, &pattern, INPUTS, NATIVE), 0);
        pattern.pop();
        pattern.push(pattern[3].clone());
        assert_eq!(descriptions(&space, &pattern, INPUTS, NATIVE), 0);
    }
}

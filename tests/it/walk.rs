//! A seeded walk of edits over a generated project, shaped as a kernel: one big relocatable link,
//! several small ones, and a link by a script of each small one's object with a module beside it.
//! After each edit, every link with the cache gives the bytes that it gives without.
//!
//! `THINSHIM_TEST_WALK="EDITS MODULES SEED"` makes it longer (`scripts/walk`).

use std::env;
use std::fmt::Write as _;

use crate::cache::counts;
use crate::space::TestSpace;

/// Numbers from a seed: Knuth's multiplier, the upper half.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }
}

/// What a module's source is made from.
#[derive(Clone)]
struct Module {
    number: usize,
    factor: usize,
    calls: [usize; 3],
    alignment: usize,
    data: bool,
    /// Which link it is in: the big one is 0.
    home: usize,
}

/// Two thirds are in the big link; of the others one, two, three, ... together.
fn home_of(number: usize, count: usize) -> usize {
    let big = count - count / 3;
    (0..=count).find(|home| number < big + home * (home + 1) / 2).unwrap_or(0)
}

struct Project {
    space: TestSpace,
    modules: Vec<Module>,
    /// How many small links there are.
    small: usize,
    /// The module edited last, as it was.
    before: Option<Module>,
    level: usize,
}

/// What the links of one step came to.
#[derive(Default)]
struct Sum {
    modules: u64,
    run: u64,
}

impl Project {
    fn new(count: usize, dice: &mut Dice) -> Project {
        let modules = (0..count)
            .map(|number| Module {
                number,
                factor: dice.roll(100),
                // Later ones only: no recursion.
                calls: [(); 3].map(|()| number + 1 + dice.roll(count)),
                alignment: 0,
                data: number.is_multiple_of(5),
                home: home_of(number, count),
            })
            .collect::<Vec<Module>>();
        let small = modules.last().map_or(0, |module| module.home);
        let space = TestSpace::new().cached();
        let project = Project { space, modules, small, before: None, level: 1 };
        project.header(1);
        project.data("first");
        project.text("first");
        project.space.write(
            "module.lds",
            "SECTIONS { .modinfo : { *(.modinfo) } .text.all 0 : { *(.text .text.[0-9a-zA-Z_]*) } }",
        );
        for number in 1..=small {
            let text = format!(
                "__attribute__((section(\".modinfo\"), used)) static const char l[] = \"name=k{number}\";\n"
            );
            project.space.write(&format!("k{number}.mod.c"), text);
            project
                .space
                .shim(&format!("clang -O2 -flto=thin -c k{number}.mod.c -o k{number}.mod.o"))
                .ok();
        }
        for directory in ["cached", "clean"] {
            project.space.write(&format!("{directory}/keep"), "");
        }
        (0..count).for_each(|number| project.compile(number));
        project
    }

    fn header(&self, constant: usize) {
        let mut text = format!("#define SHARED {constant}\n");
        for module in &self.modules {
            let _ = writeln!(text, "int f{}(int);", module.number);
        }
        self.space.write("shared.h", text);
    }

    fn data(&self, word: &str) {
        self.space.write("data.txt", word);
    }

    fn text(&self, word: &str) {
        self.space.write("text.inc", format!(".ascii \"{word}\"\n"));
    }

    /// Every other module includes the constant of the header.
    fn compile(&self, number: usize) {
        let module = &self.modules[number];
        let mut text = String::from("#include \"shared.h\"\n");
        if module.data {
            let _ = writeln!(
                text,
                "__asm__(\".pushsection .rodata\\nd{number}: .incbin \\\"data.txt\\\"\\n\"\n\
                 \".include \\\"text.inc\\\"\\n.popsection\\n\");"
            );
        }
        let shared = if number.is_multiple_of(2) { "SHARED" } else { "3" };
        let _ = write!(
            text,
            "static int local(int x) {{ return x * {} + {shared}; }}\nint f{number}(int x) {{\n",
            module.factor
        );
        for &called in module.calls.iter().filter(|&&called| called < self.modules.len()) {
            let _ = writeln!(text, "  if (x > {called}) x += f{called}(x - 1);");
        }
        text += "  return local(x);\n}\n";
        self.space.write(&format!("m{number}.c"), text);
        let alignment = 1 << module.alignment;
        self.space
            .shim(&format!(
                "clang -O2 -g -flto=thin -falign-functions={alignment} -falign-loops={alignment} \
                 -c m{number}.c -o m{number}.o"
            ))
            .ok();
    }

    fn edit(&mut self, dice: &mut Dice) -> String {
        let count = self.modules.len();
        let number = dice.roll(count);
        let before = self.modules[number].clone();
        let module = &mut self.modules[number];
        let told = match dice.roll(11) {
            0..=2 => {
                module.factor = dice.roll(100);
                format!("the body of m{number}")
            }
            3 => {
                module.alignment = dice.roll(4);
                format!("the options of m{number}")
            }
            4 => {
                module.calls = [(); 3].map(|()| number + 1 + dice.roll(count));
                format!("the calls of m{number}")
            }
            5 => {
                module.home = dice.roll(self.small + 1);
                format!("the link of m{number}: {}", module.home)
            }
            6 => {
                let Some(module) = self.before.take() else { return "nothing".into() };
                let number = module.number;
                self.modules[number] = module;
                self.compile(number);
                return format!("m{number}, back to what it was");
            }
            7 => {
                let constant = dice.roll(3);
                self.header(constant);
                (0..count).step_by(2).for_each(|number| self.compile(number));
                return format!("the header: {constant}");
            }
            8 => {
                let word = ["first", "second", "third"][dice.roll(3)];
                self.data(word);
                return format!("the data: {word}");
            }
            9 => {
                let word = ["first", "second", "third"][dice.roll(3)];
                self.text(word);
                return format!("the included assembly: {word}");
            }
            _ => {
                self.level = 1 + dice.roll(3);
                return format!("the links' options: {}", self.level);
            }
        };
        self.before = Some(before);
        self.compile(number);
        told
    }

    /// One link with and without the cache, and once more, for which there is nothing to do.
    fn link(&self, step: &str, args: &str, output: &str, modules: usize, sum: &mut Sum) {
        let run = |directory: &str| {
            let args = args.replace("HERE", directory);
            let run = self.space.strict(&format!("ld.lld -r {args} -o {directory}/{output}"));
            run.env("MAKEFLAGS", "s").env("THINSHIM_REPORT", "report")
        };
        run("clean").env("THINSHIM_CACHE", "off").ok();
        let clean = self.space.read(format!("clean/{output}"));
        let link = || {
            run("cached").ok();
            let same = self.space.read(format!("cached/{output}")) == clean;
            assert!(same, "after an edit of {step}: {output} is stale");
        };
        link();
        sum.modules += modules as u64;
        sum.run += counts(&self.space).0;
        link();
        let report = self.space.report();
        assert!(report["link_hit"] == true, "after an edit of {step}: {report}");
    }

    /// All links.
    fn build(&self, step: &str) -> Sum {
        let mut sum = Sum::default();
        for home in 0..=self.small {
            let members = self.modules.iter().filter(|module| module.home == home);
            let names: Vec<String> =
                members.map(|module| format!("m{}.o", module.number)).collect();
            // The last one may have moved out.
            if names.is_empty() {
                continue;
            }
            let options = format!("-mllvm -import-instr-limit={}", self.level * 10);
            let (args, output) = (format!("{options} {}", names.join(" ")), format!("k{home}.o"));
            self.link(step, &args, &output, names.len(), &mut sum);
            if home > 0 {
                let args = format!("--build-id=sha1 -T module.lds HERE/k{home}.o k{home}.mod.o");
                self.link(step, &args, &format!("k{home}.ko"), 1, &mut sum);
            }
        }
        sum
    }
}

#[test]
fn every_step_of_a_walk_is_as_clean() {
    let asked = env::var("THINSHIM_TEST_WALK").unwrap_or_else(|_| "8 10 1".into());
    let numbers: Vec<usize> =
        asked.split(' ').map(|number| number.parse().expect("EDITS MODULES SEED")).collect();
    let [edits, modules, seed] = numbers[..] else { panic!("EDITS MODULES SEED, not {asked}") };
    let mut dice = Dice(seed as u64);
    let mut project = Project::new(modules, &mut dice);
    assert!(project.small > 0, "too few modules for a small link");
    let Sum { modules, run } = project.build("nothing");
    assert_eq!(run, modules, "an empty cache");
    let mut all = Sum::default();
    for number in 1..=edits {
        let step = project.edit(&mut dice);
        let sum = project.build(&step);
        eprintln!("{number}/{edits}: {step}: {} of {} back ends run", sum.run, sum.modules);
        all.modules += sum.modules;
        all.run += sum.run;
    }
    eprintln!("{edits} edits, seed {seed}: {} of {} back ends run", all.run, all.modules);
    assert!(all.run > 0 && all.run < all.modules, "a cache that never hits proves nothing");
    assert_eq!(project.build("nothing").run, 0);
    project.space.is_clean();
}

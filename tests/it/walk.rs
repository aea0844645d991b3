//! A seeded walk of edits over a generated project: after each one, the link with the cache gives
//! the bytes that a link without it gives.
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
}

struct Project {
    space: TestSpace,
    modules: Vec<Module>,
    level: usize,
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
            })
            .collect();
        let project = Project { space: TestSpace::new().cached(), modules, level: 1 };
        project.header(1);
        project.data("first");
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

    /// Every other module includes the constant of the header.
    fn compile(&self, number: usize) {
        let module = &self.modules[number];
        let mut text = String::from("#include \"shared.h\"\n");
        if module.data {
            let _ = writeln!(
                text,
                "__asm__(\".pushsection .rodata\\nd{number}: .incbin \\\"data.txt\\\"\\n.popsection\\n\");"
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
        let number = dice.roll(self.modules.len());
        match dice.roll(8) {
            0..=2 => {
                self.modules[number].factor = dice.roll(100);
                self.compile(number);
                format!("the body of m{number}")
            }
            3 => {
                self.modules[number].alignment = dice.roll(4);
                self.compile(number);
                format!("the options of m{number}")
            }
            4 => {
                let constant = dice.roll(3);
                self.header(constant);
                (0..self.modules.len()).step_by(2).for_each(|number| self.compile(number));
                format!("the header: {constant}")
            }
            5 => {
                let word = ["first", "second", "third"][dice.roll(3)];
                self.data(word);
                format!("the data: {word}")
            }
            6 => {
                let count = self.modules.len();
                self.modules[number].calls = [(); 3].map(|()| number + 1 + dice.roll(count));
                self.compile(number);
                format!("the calls of m{number}")
            }
            _ => {
                self.level = 1 + dice.roll(3);
                format!("the link's options: {}", self.level)
            }
        }
    }

    /// Links with and without the cache, and once more, for which there is nothing to do; returns
    /// the hits of the first.
    fn link(&self, step: &str) -> u64 {
        let mut objects = String::new();
        for module in &self.modules {
            let _ = write!(objects, " m{}.o", module.number);
        }
        let run = |output: &str| {
            self.space
                .strict(&format!(
                    "ld.lld -r -mllvm -import-instr-limit={} {objects} -o {output}",
                    self.level * 10
                ))
                .env("MAKEFLAGS", "s")
                .env("THINSHIM_REPORT", "report")
        };
        run("clean").env("THINSHIM_CACHE", "off").ok();
        let link = || {
            run("out").ok();
            let same = self.space.read("out") == self.space.read("clean");
            assert!(same, "after an edit of {step}: stale");
            self.space.report()["link_hit"] == true
        };
        let modules = self.modules.len() as u64;
        let hits = if link() { modules } else { counts(&self.space).1 };
        assert!(link(), "after an edit of {step}: {}", self.space.report());
        hits
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
    project.link("nothing");
    let mut hits = 0;
    for number in 1..=edits {
        let step = project.edit(&mut dice);
        let taken = project.link(&step);
        eprintln!("{number}/{edits}: {step}: {taken} of {modules} from cache");
        hits += taken;
    }
    assert!(hits > 0, "a cache that never hits proves nothing");
    assert_eq!(project.link("nothing"), modules as u64);
}

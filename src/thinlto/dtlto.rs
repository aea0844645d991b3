//! What LLVM's integrated distributed ThinLTO (DTLTO) asks of a distributor: a JSON file
//! (`llvm/docs/DTLTO.rst`, "JSON Schema"; written since lld 21).

use std::ffi::OsString;
use std::path::PathBuf;

use serde_json::Value;

/// A link's back ends, as lld asks for them.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The output of the link.
    pub output: PathBuf,
    /// `--thinlto-remote-compiler=`; empty where the link names none.
    pub compiler: OsString,
    /// The options of every back end: those that lld knows from its command line.
    pub common: Vec<OsString>,
    /// One for each module.
    pub jobs: Vec<Asked>,
}

/// A back end that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// The module.
    pub module: OsString,
    /// Its individual index.
    pub index: PathBuf,
    /// The modules that it imports from.
    pub imported: Vec<OsString>,
    /// The native object to be written.
    pub output: PathBuf,
    /// Options of its own.
    pub options: Vec<OsString>,
    /// It writes more than the object.
    pub side_outputs: bool,
}

/// Options that lld gives every back end, wanted or not: an object's record knows better.
fn is_default(word: &OsString) -> bool {
    const WORDS: [&str; 6] = [
        "-c",
        "-faddrsig",
        "-ffunction-sections",
        "-fdata-sections",
        "-fpic",
        "-Wno-unused-command-line-argument",
    ];
    let word = word.to_string_lossy();
    WORDS.iter().any(|default| word == *default)
        || word.starts_with("--target=")
        || word.strip_prefix("-O").is_some_and(|level| level.len() == 1)
}

impl Request {
    /// Reads the file's text.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn read(text: &[u8]) -> Result<Request, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let common = &value["common"];
        let mut words = strings(&common["args"], "common.args")?.into_iter();
        let compiler = words.next().ok_or("common.args names no compiler")?;
        let jobs = value["jobs"].as_array().ok_or("it has no list of jobs")?;
        let output = common["linker_output"].as_str().ok_or("it has no common.linker_output")?;
        Ok(Request {
            output: output.into(),
            compiler,
            common: words.filter(|word| word != "-c").collect(),
            jobs: jobs.iter().map(asked).collect::<Result<_, _>>()?,
        })
    }

    /// The common options that somebody has asked for.
    pub fn explicit(&self) -> Vec<OsString> {
        self.common.iter().filter(|word| !is_default(word)).cloned().collect()
    }

    /// The link decides that code is position-independent.
    pub fn pic(&self) -> bool {
        self.common.iter().any(|word| word == "-fpic")
    }
}

fn asked(job: &Value) -> Result<Asked, String> {
    let mut inputs = strings(&job["inputs"], "a job's inputs")?.into_iter();
    let outputs = strings(&job["outputs"], "a job's outputs")?;
    let (Some(module), Some(index)) = (inputs.next(), inputs.next()) else {
        return Err("a job's inputs are no module and its index".to_owned());
    };
    let output = outputs.first().ok_or("a job has no output")?;
    let mut index_option = OsString::from("-fthinlto-index=");
    index_option.push(&index);
    let mut options = Vec::new();
    let mut words = strings(&job["args"], "a job's args")?.into_iter();
    let mut object = None;
    while let Some(word) = words.next() {
        if word == "-o" {
            object = words.next();
        } else if word != module && word != index_option {
            options.push(word);
        }
    }
    if object.as_ref() != Some(output) {
        return Err("a job's first output is not what its args write".to_owned());
    }
    Ok(Asked {
        module,
        index: index.into(),
        imported: inputs.collect(),
        output: output.into(),
        options,
        side_outputs: outputs.len() > 1,
    })
}

fn strings(value: &Value, name: &str) -> Result<Vec<OsString>, String> {
    let list = value.as_array().ok_or_else(|| format!("it has no list {name}"))?;
    list.iter()
        .map(|word| word.as_str().map(OsString::from))
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{name} are not all strings"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
        "common": {
            "linker_output": "out",
            "args": ["/l/clang", "-v", "-c", "--target=x86_64-pc-linux-gnu", "-O2", "-faddrsig",
                     "-ffunction-sections", "-fdata-sections", "-fpic", "-mllvm",
                     "-no-pgo-warn-mismatch", "-fprofile-sample-use=p",
                     "-Wno-unused-command-line-argument", "-Ofast", "-g0"],
            "inputs": ["p"]
        },
        "jobs": [{
            "args": ["a b.o", "-fthinlto-index=a.bc", "-o", "a.native.o", "-fproc-stat-report=s"],
            "inputs": ["a b.o", "a.bc", "c.o"],
            "outputs": ["a.native.o", "s"]
        }]
    }"#;

    #[test]
    fn a_request_is_understood() {
        let request = Request::read(TEXT.as_bytes()).expect("a request");
        assert_eq!(
            (request.output.to_str(), request.compiler.to_str()),
            (Some("out"), Some("/l/clang"))
        );
        assert!(request.pic());
        assert_eq!(request.common.len(), 13);
        assert_eq!(
            request.explicit(),
            ["-v", "-mllvm", "-no-pgo-warn-mismatch", "-fprofile-sample-use=p", "-Ofast", "-g0"]
        );
        assert_eq!(
            request.jobs,
            [Asked {
                module: "a b.o".into(),
                index: "a.bc".into(),
                imported: vec!["c.o".into()],
                output: "a.native.o".into(),
                options: vec!["-fproc-stat-report=s".into()],
                side_outputs: true,
            }]
        );
    }

    #[test]
    fn what_is_none_is_told() {
        for (text, word) in [
            ("", "EOF"),
            ("{}", "common.args"),
            (r#"{"common": {"args": []}}"#, "compiler"),
            (r#"{"common": {"args": ["c"]}, "jobs": []}"#, "linker_output"),
            (r#"{"common": {"args": ["c"], "linker_output": "o"}}"#, "jobs"),
            (r#"{"common": {"args": [1]}}"#, "strings"),
        ] {
            let error = Request::read(text.as_bytes()).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
        let other = TEXT.replace("\"outputs\": [\"a.native.o\"", "\"outputs\": [\"x.o\"");
        assert!(Request::read(other.as_bytes()).is_err());
    }
}

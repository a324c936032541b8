//! Protobuf definitions: one that does not compile is refused.
//!
//! The rule to know: a definition stands alone, but for what Google ships with protobuf.

use base64::Engine as _;
use protox::{
    Compiler, Error,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
    prost_reflect::DescriptorPool,
};

/// The file that a definition is compiled as.
const NAME: &str = "content.proto";

/// Checks the content of a proto: a `.proto` text, or a descriptor set in base64.
pub fn check(content: &str) -> Result<(), String> {
    let Err(error) = compile(content) else { return Ok(()) };
    let set = base64::engine::general_purpose::STANDARD.decode(content.trim()).ok();
    let is_set = set.is_some_and(|set| !set.is_empty() && DescriptorPool::decode(&*set).is_ok());
    if is_set { Ok(()) } else { Err(format!("invalid content: {error}")) }
}

fn compile(text: &str) -> Result<(), Error> {
    let mut files = ChainFileResolver::new();
    files.add(Content(text.to_owned()));
    files.add(GoogleFileResolver::new());
    Compiler::with_file_resolver(files).open_file(NAME).map(drop)
}

struct Content(String);

impl FileResolver for Content {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        if name == NAME { File::from_source(name, &self.0) } else { Err(Error::file_not_found(name)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compiles_is_taken() {
        let text = r#"
            syntax = "proto3";
            package greet;
            import "google/protobuf/empty.proto";
            message Hello { string name = 1; }
            service Greeter { rpc Greet (Hello) returns (google.protobuf.Empty); }
        "#;
        assert_eq!(check(text), Ok(()));
        let mut files = ChainFileResolver::new();
        files.add(Content(text.to_owned()));
        files.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(files);
        compiler.include_imports(true).open_file(NAME).unwrap();
        let set = base64::engine::general_purpose::STANDARD.encode(compiler.encode_file_descriptor_set());
        assert_eq!(check(&set), Ok(()));
    }

    #[test]
    fn the_rest_is_refused() {
        for content in [
            "syntax = \"proto3\"; message A { int32 a = 1; string b = 1; }",
            "syntax = \"proto3\"; message A { Missing a = 1; }",
            "import \"elsewhere.proto\";",
            "message {",
            "CAEQ",
        ] {
            let refused = check(content).unwrap_err();
            assert!(refused.starts_with("invalid content: "), "{content}: {refused}");
        }
    }
}

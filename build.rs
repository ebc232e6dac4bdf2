//! Prepares the files of the page at `/docs`: extracts Swagger UI's files from its release archive, compresses
//! each file, and computes a hash of its content for the entity tag.

use flate2::{Compression, write::GzEncoder};
use std::hash::{DefaultHasher, Hasher};
use std::io::{Cursor, Read, Write};
use std::{env, error::Error, fs, path::Path};
use zip::ZipArchive;

/// The files from the archive of Swagger UI.
const RELEASED: [&str; 2] = ["swagger-ui.css", "swagger-ui-bundle.js"];
/// The files from this repository: the name and the path of each.
const OWN: [(&str, &str); 4] = [
    ("docs.html", "src/http/docs.html"),
    ("docs.css", "src/http/docs.css"),
    ("docs.js", "src/http/docs.js"),
    ("openapi.json", "openapi.json"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut archive = ZipArchive::new(Cursor::new(utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED))?;
    let mut files = String::from("[\n");
    for name in RELEASED {
        let suffix = format!("/dist/{name}");
        let path = (archive.file_names().filter_map(Result::ok)).find(|path| path.ends_with(&suffix));
        let path = path.ok_or("the archive lacks an asset")?.into_owned();
        let mut content = Vec::new();
        archive.by_name(&path)?.read_to_end(&mut content)?;
        files += &prepare(name, &content)?;
    }
    for (name, path) in OWN {
        println!("cargo::rerun-if-changed={path}");
        files += &prepare(name, &fs::read(path)?)?;
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("files.rs"), files + "]")?;
    Ok(())
}

/// Writes the compressed file, and returns the line of Rust code that describes it: name, hash and content.
fn prepare(name: &str, content: &[u8]) -> Result<String, Box<dyn Error>> {
    let path = Path::new(&env::var("OUT_DIR")?).join(format!("{name}.gz"));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    fs::write(&path, encoder.finish()?)?;
    let mut hasher = DefaultHasher::new();
    hasher.write(content);
    let tag = format!("{:016x}", hasher.finish());
    Ok(format!("    ({name:?}, {tag:?}, include_bytes!({path:?})),\n"))
}

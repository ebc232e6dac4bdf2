//! Takes the assets of the page at `/docs` out of the archive that Swagger UI is released as.

use std::{env, error::Error, fs, io::Cursor, path::Path};
use zip::ZipArchive;

const ASSETS: [&str; 2] = ["swagger-ui.css", "swagger-ui-bundle.js"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR")?;
    let mut archive = ZipArchive::new(Cursor::new(utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED))?;
    for asset in ASSETS {
        let suffix = format!("/dist/{asset}");
        let name = (archive.file_names().filter_map(Result::ok)).find(|name| name.ends_with(&suffix));
        let name = name.ok_or("the archive lacks an asset")?.into_owned();
        let mut file = fs::File::create(Path::new(&out).join(asset))?;
        std::io::copy(&mut archive.by_name(&name)?, &mut file)?;
    }
    Ok(())
}

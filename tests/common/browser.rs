//! A page in a real browser: what its document became, what it said on the console, and what is to be seen of it.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};

/// A page that was opened from disk.
pub(crate) struct Opened {
    /// The document after its scripts ran.
    pub(crate) dom: String,
    /// Messages on the console: errors, and what the content security policy refused.
    pub(crate) console: Vec<String>,
    /// Red, green and blue of every pixel.
    screenshot: Vec<[u8; 3]>,
}

impl Opened {
    /// How many pixels have exactly this colour.
    pub(crate) fn pixels(&self, color: [u8; 3]) -> usize {
        self.screenshot.iter().filter(|pixel| **pixel == color).count()
    }

    /// The value of `<data id=… value=…>`.
    pub(crate) fn value(&self, id: &str) -> Option<f64> {
        let after = self.dom.split_once(&format!("<data id=\"{id}\" value=\""))?.1;
        after.split_once('"')?.0.parse().ok()
    }
}

/// Opens a file in Chromium, in a window of this size; without one it says that the test is left out.
pub(crate) fn open(page: &Path, [width, height]: [u32; 2]) -> Option<Opened> {
    let program = std::env::var("BATCHSQL_TEST_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    let profile = tempfile::tempdir().unwrap();
    let screenshot = profile.path().join("page.png");
    let run = |what: &str| {
        Command::new(&program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr"])
            .arg("--virtual-time-budget=5000")
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .arg(format!("--window-size={width},{height}"))
            .arg(what)
            .arg(format!("file://{}", page.canonicalize().unwrap().display()))
            .stdin(Stdio::null())
            .output()
    };
    let Ok(dumped) = run("--dump-dom") else {
        println!("left out: chromium is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&dumped.stderr);
    let console = said.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    run(&format!("--screenshot={}", screenshot.display())).unwrap();
    let screenshot = decoded(&screenshot).unwrap_or_else(|error| panic!("no screenshot ({error}): {said}"));
    Some(Opened { dom: String::from_utf8(dumped.stdout).unwrap(), console, screenshot })
}

fn decoded(file: &Path) -> Result<Vec<[u8; 3]>, png::DecodingError> {
    let mut reader = png::Decoder::new(BufReader::new(File::open(file)?)).read_info()?;
    let mut bytes = vec![0; reader.output_buffer_size().expect("a screenshot fits into memory")];
    let frame = reader.next_frame(&mut bytes)?;
    let channels = frame.color_type.samples();
    Ok(bytes[..frame.buffer_size()].chunks(channels).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect())
}

//! What is going on, for a person at a terminal or for a log.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Steps with the time that each took. On a terminal the one that runs is
/// shown with a spinner; elsewhere there are only lines.
#[derive(Debug)]
pub struct Progress {
    spinner: Option<ProgressBar>,
    began: Mutex<Instant>,
    quiet: bool,
}

impl Progress {
    /// To standard output.
    pub fn new() -> Progress {
        let spinner = std::io::stdout().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("a constant that is valid");
            spinner.set_style(style);
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        Progress { spinner, began: Mutex::new(Instant::now()), quiet: false }
    }

    /// To nobody (tests).
    pub fn quiet() -> Progress {
        Progress { spinner: None, began: Mutex::new(Instant::now()), quiet: true }
    }

    pub fn begin(&self, text: impl std::fmt::Display) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(text.to_string());
        }
    }

    /// A step has ended well: says so, with the time since the last one.
    pub fn done(&self, text: impl std::fmt::Display) {
        let mut began = self.began.lock().expect("no holder panics");
        let took = began.elapsed();
        *began = Instant::now();
        drop(began);
        self.say(format!("[{:>5.1}s] {text}", took.as_secs_f64()));
    }

    pub fn say(&self, text: impl std::fmt::Display) {
        match &self.spinner {
            _ if self.quiet => {}
            Some(spinner) => spinner.suspend(|| line(&text)),
            None => line(&text),
        }
    }

    /// No more spinner.
    pub fn finish(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// A line to standard output. Whoever read it may be gone (`./up | head`), and
/// what runs goes on without them.
pub fn line(text: impl std::fmt::Display) {
    let _nobody = writeln!(std::io::stdout(), "{text}");
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

//! Does through the sidecar of its pod what applications do: read, write on a condition, read a batch, and watch.
//!
//! Usage: client get DATASET KEY | replace DATASET KEY VALUE [ETAG] | batch DATASET KEY... | watch DATASET KEY

use std::io::{BufRead, BufReader};
use std::time::Duration;
use std::{env, fmt, process, thread};

use serde_json::{json, Value};
use ureq::{Agent, AgentBuilder, Response};

/// Longer than the sidecar takes to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the time between two heartbeats of a watch.
const IDLE: Duration = Duration::from_secs(60);
const MAX_RETRIES: u32 = 30;

#[derive(Debug)]
enum Error {
    /// An error of the sidecar (RFC 9457). Rely on the name of its type, such as "not-found".
    Problem { name: String, detail: String, retry_after: Option<u64> },
    /// No response. The sidecar may be restarting.
    Transport(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Problem { name, detail, .. } => write!(f, "error {}: {}", name, detail),
            Error::Transport(text) => write!(f, "{}", text),
        }
    }
}

impl Error {
    fn is(&self, wanted: &str) -> bool {
        matches!(self, Error::Problem { name, .. } if name == wanted)
    }

    /// Seconds after which a retry may help.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Error::Problem { retry_after, .. } => *retry_after,
            Error::Transport(_) => Some(1),
        }
    }
}

impl From<ureq::Error> for Error {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::Status(_, response) => {
                let retry_after = response.header("Retry-After").and_then(|seconds| seconds.parse().ok());
                let document = json_of(response).unwrap_or_default();
                let detail = document["detail"].as_str().unwrap_or_default().to_string();
                Error::Problem { name: name_of(&document).to_string(), detail, retry_after }
            }
            transport => Error::Transport(transport.to_string()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::Transport(error.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::Transport(error.to_string())
    }
}

type Result<T> = std::result::Result<T, Error>;

fn json_of(response: Response) -> Result<Value> {
    Ok(serde_json::from_str(&response.into_string()?)?)
}

fn name_of(problem: &Value) -> &str {
    let full = problem["type"].as_str().unwrap_or_default();
    full.strip_prefix("https://ringside.dev/problems/").unwrap_or(full)
}

struct Client {
    agent: Agent,
    sidecar: String,
}

impl Client {
    fn url(&self, dataset: &str, key: &str) -> String {
        format!("{}/v1/{}/{}", self.sidecar, dataset, escape(key))
    }

    /// Repeats a read while the sidecar is overloaded or the database is down (429, 503), or the sidecar is restarting.
    fn read(&self, url: &str) -> Result<Response> {
        let mut attempt = 0;
        loop {
            let error = match self.agent.get(url).call() {
                Ok(response) => return Ok(response),
                Err(error) => Error::from(error),
            };
            match error.retry_after() {
                Some(seconds) if attempt < MAX_RETRIES => {
                    eprintln!("unavailable, trying again in {} s", seconds);
                    thread::sleep(Duration::from_secs(seconds));
                }
                _ => return Err(error), // it does not change when it is repeated
            }
            attempt += 1;
        }
    }

    fn get(&self, dataset: &str, key: &str) -> Result<()> {
        match self.read(&self.url(dataset, key)) {
            Err(error) if error.is("not-found") => println!("not found"), // an answer like any other
            Err(error) => return Err(error),
            Ok(response) if response.header("Ringside-Stale") == Some("true") => {
                // the database is down: use it, and know its age
                let age = response.header("Age").unwrap_or("?").to_string();
                println!("stale, {} s old: {}", age, response.into_string()?);
            }
            Ok(response) => println!("value: {}", response.into_string()?),
        }
        Ok(())
    }

    /// Writes a value if nobody else has changed the row since it was read, or since it had the given ETag. A write is not
    /// repeated: after a lost response, read the row to find out whether it was made, or send an Idempotency-Key.
    fn replace(&self, dataset: &str, key: &str, value: &str, etag: Option<&String>) -> Result<()> {
        let url = self.url(dataset, key);
        let etag = match etag {
            Some(etag) => etag.clone(),
            None => self.read(&url)?.header("ETag").unwrap_or_default().to_string(),
        };
        let put = self.agent.put(&url).set("If-Match", &etag).set("Content-Type", "application/json");
        match put.send_string(value).map_err(Error::from) {
            Ok(response) => println!("written, version {}", response.header("Ringside-Version").unwrap_or("unknown")),
            // read it again, and decide again
            Err(error) if error.is("precondition-failed") => println!("condition failed"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads many keys in one request. Each has a result of its own: some may fail.
    fn batch(&self, dataset: &str, keys: &[String]) -> Result<()> {
        let url = format!("{}/v1/{}:batchGet", self.sidecar, dataset);
        let post = self.agent.post(&url).set("Content-Type", "application/json");
        let answer = json_of(post.send_string(&json!({ "keys": keys }).to_string())?)?;
        for state in answer["results"].as_array().into_iter().flatten() {
            println!("{}", text_of(state));
        }
        Ok(())
    }

    /// Prints each change of a key, forever. After an interruption it resumes with the id of the last event.
    fn watch(&self, dataset: &str, key: &str) -> ! {
        let url = format!("{}/v1/{}:watch?key={}", self.sidecar, dataset, escape(key));
        let mut last = String::new();
        loop {
            if let Err(error) = self.follow(&url, &mut last) {
                eprintln!("interrupted: {}", error);
            }
            eprintln!("resuming");
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Prints server-sent events until the connection ends. A line with a colon alone is a heartbeat.
    fn follow(&self, url: &str, last: &mut String) -> Result<()> {
        let agent = AgentBuilder::new().timeout_connect(TIMEOUT).timeout_read(IDLE).build();
        let mut request = agent.get(url);
        if !last.is_empty() {
            request = request.set("Last-Event-ID", last);
        }
        let (mut event, mut data) = (String::new(), String::new());
        for line in BufReader::new(request.call()?.into_reader()).lines() {
            let line = line?;
            match line.split_once(": ") {
                Some(("event", value)) => event = value.to_string(),
                Some(("data", value)) => data = value.to_string(),
                Some(("id", value)) => *last = value.to_string(),
                None if line.is_empty() && event == "state" => println!("{}", text_of(&serde_json::from_str(&data)?)),
                // current: all states were sent; reset: they come again
                None if line.is_empty() && !event.is_empty() => println!("{}", event),
                _ => continue,
            }
            if line.is_empty() {
                event.clear();
            }
        }
        Ok(())
    }
}

/// The result of one key of a batch, or a state event of a watch.
fn text_of(state: &Value) -> String {
    let key = state["key"].as_str().unwrap_or_default();
    if !state["error"].is_null() {
        return match name_of(&state["error"]) {
            "not-found" => format!("{}: not found", key),
            name => format!("{}: error {}", key, name),
        };
    }
    let kind = if state["stale"] == true { "stale" } else { "value" };
    format!("{}: {}: {}", key, kind, state["value"])
}

/// Percent-encodes a key as one segment of a path.
fn escape(key: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    key.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{:02X}", b) }).collect()
}

fn main() {
    let client = Client {
        agent: AgentBuilder::new().timeout(TIMEOUT).build(),
        sidecar: env::var("RINGSIDE_HTTP").unwrap_or_else(|_| "http://localhost:7070".to_string()),
    };
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["get", dataset, key] => client.get(dataset, key),
        ["replace", dataset, key, value] => client.replace(dataset, key, value, None),
        ["replace", dataset, key, value, _] => client.replace(dataset, key, value, args.get(4)),
        ["batch", dataset, _, ..] => client.batch(dataset, &args[2..]),
        ["watch", dataset, key] => client.watch(dataset, key),
        _ => {
            eprintln!("usage: client get|replace|batch|watch DATASET KEY...");
            process::exit(2);
        }
    };
    if let Err(error) = result {
        eprintln!("{}", error);
        process::exit(1);
    }
}

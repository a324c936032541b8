//! moto: an S3 with IAM that honours If-Match and If-None-Match, and enforces users' policies.
//!
//! It keeps everything in memory and does not look at clocks. Clients reach it through a fault proxy,
//! [`Moto::net`]: to them the server is dead, slow or gone while its buckets are safe. [`Moto::restart`] brings back
//! users, buckets and objects after a real death, under the same keys.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{S3, python_program, ram_dir};
use crate::http::{get, request};
use crate::ports;
use crate::process::Process;
use crate::proxy::FaultProxy;
use crate::wait::eventually;

const START: Duration = Duration::from_secs(60);

/// A user of the server.
#[derive(Debug, Clone)]
struct User {
    name: String,
    policy: Value,
}

/// A running moto; stops with its handle.
#[derive(Debug)]
pub struct Moto {
    process: Option<Process>,
    net: FaultProxy,
    port: u16,
    buckets: Vec<String>,
    users: Vec<User>,
    keys: BTreeMap<String, (String, String)>,
    directory: TempDir,
}

impl Moto {
    /// Starts one with these buckets and a user `root` who may do anything. From here on keys are checked.
    pub async fn start(buckets: &[&str]) -> Self {
        Self::with_users(buckets, &[]).await
    }

    /// As [`Self::start`], with more users, each with an IAM policy: see [`allow`].
    pub async fn with_users(buckets: &[&str], users: &[(&str, Value)]) -> Self {
        let port = ports::free();
        let everything = allow(&["*"], &["*"]);
        let users = [("root", everything)].into_iter().chain(users.iter().cloned());
        let users = users.map(|(name, policy)| User { name: name.to_owned(), policy });
        let mut moto = Self {
            process: None,
            net: FaultProxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            port,
            buckets: buckets.iter().map(|bucket| (*bucket).to_owned()).collect(),
            users: users.collect(),
            keys: BTreeMap::new(),
            directory: ram_dir("keelgate-moto-"),
        };
        moto.boot(&[]).await;
        moto
    }

    /// The address for clients, through the fault proxy.
    pub fn endpoint(&self) -> String {
        self.net.url("")
    }

    /// The line between clients and server.
    pub fn net(&self) -> &FaultProxy {
        &self.net
    }

    /// A client with a user's keys, through the fault proxy.
    #[track_caller]
    pub fn client(&self, user: &str) -> S3 {
        let (access_key, secret_key) = self.keys.get(user).expect("a user of this server");
        S3::new(&self.endpoint(), access_key, secret_key)
    }

    /// A client that may do anything, past the fault proxy.
    pub fn root(&self) -> S3 {
        S3 { endpoint: self.direct(""), ..self.client("root") }
    }

    /// Puts a secret into its Secrets Manager. A restart loses it.
    pub async fn put_secret(&self, name: &str, text: &str) {
        let (url, client) = (self.direct("/"), self.root());
        let body = json!({ "Name": name, "SecretString": text, "ClientRequestToken": format!("{:0>32}", name.len()) });
        let body = body.to_string();
        let signed = client.sign("secretsmanager", &Method::POST, &url, body.as_bytes());
        let mut headers = vec![
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", "secretsmanager.CreateSecret"),
        ];
        headers.extend(signed.iter().map(|(name, value)| (*name, value.as_str())));
        let response = request(Method::POST, &url, &headers, body).await.expect("an answer from moto");
        assert_eq!(response.status, 200, "{name}: {}", response.text());
    }

    /// SIGKILL. What it held is lost, save what [`Self::restart`] brings back.
    pub fn kill9(&mut self) {
        self.process.take().expect("moto runs").kill9();
        self.net.reset();
    }

    /// SIGKILL, then a new process on the same port with the same users, keys, buckets and objects.
    ///
    /// `away` runs while the server is dead.
    pub async fn restart(&mut self, away: impl AsyncFnOnce()) {
        let root = self.root();
        let mut objects = Vec::new();
        for bucket in &self.buckets {
            for key in root.list(bucket, "").await.expect("a list of objects") {
                let body = root.get(bucket, &key).await.expect("an object");
                objects.push((bucket.clone(), key, body));
            }
        }
        self.kill9();
        away().await;
        self.boot(&objects).await;
    }

    /// The server's process: to pause it, say.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("moto runs")
    }

    async fn boot(&mut self, objects: &[(String, String, Bytes)]) {
        let mut command = Command::new(python_program("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &self.port.to_string()]);
        // Keys and policies are not looked at until everyone has theirs.
        command.env("INITIAL_NO_AUTH_ACTION_COUNT", "999999");
        let log = self.directory.path().join("moto.log");
        self.process = Some(Process::start("moto", &command, &log));
        let url = self.direct("/moto-api/");
        eventually(START, "moto to answer", async || get(&url).await.map(|_| ())).await;
        // The same dice as last time give the same keys as last time.
        self.plain("/moto-api/seed?a=7", "").await;
        for user in self.users.clone() {
            let keys = self.create_user(&user).await;
            self.keys.insert(user.name, keys);
        }
        let root = self.root();
        for bucket in &self.buckets {
            root.create_bucket(bucket).await.expect("a bucket");
        }
        for (bucket, key, body) in objects {
            root.put(bucket, key, body.clone()).await.expect("an object put back");
        }
        self.plain("/moto-api/reset-auth", "0").await;
    }

    async fn create_user(&self, user: &User) -> (String, String) {
        let name = user.name.as_str();
        self.iam(&[("Action", "CreateUser"), ("UserName", name)]).await;
        let policy = user.policy.to_string();
        let put = [
            ("Action", "PutUserPolicy"),
            ("UserName", name),
            ("PolicyName", "own"),
            ("PolicyDocument", policy.as_str()),
        ];
        self.iam(&put).await;
        let answer = self.iam(&[("Action", "CreateAccessKey"), ("UserName", name)]).await;
        let part = |tag: &str| {
            let rest = answer.split_once(&format!("<{tag}>")).map_or("", |(_, rest)| rest);
            rest.split('<').next().unwrap_or_default().to_owned()
        };
        (part("AccessKeyId"), part("SecretAccessKey"))
    }

    /// A call to IAM, before keys are checked.
    async fn iam(&self, parameters: &[(&str, &str)]) -> String {
        let url = self.direct("/");
        let mut form = form_urlencoded::Serializer::new(String::new());
        let body = form.append_pair("Version", "2010-05-08").extend_pairs(parameters).finish();
        // moto tells the service from the scope of the signature.
        let signed = S3::new(&url, "setup", "setup").sign("iam", &Method::POST, &url, body.as_bytes());
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
        headers.extend(signed.iter().map(|(name, value)| (*name, value.as_str())));
        let response = request(Method::POST, &url, &headers, body).await.expect("an answer from IAM");
        assert_eq!(response.status, 200, "{parameters:?}: {}", response.text());
        response.text()
    }

    async fn plain(&self, path: &str, body: &'static str) {
        let url = self.direct(path);
        let response = request(Method::POST, &url, &[("content-type", "text/plain")], body).await;
        let response = response.expect("an answer from moto");
        assert_eq!(response.status, 200, "{path}: {}", response.text());
    }

    fn direct(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// An IAM policy: these actions on these resources, as `s3:GetObject` on `arn:aws:s3:::bucket/*`.
pub fn allow(actions: &[&str], resources: &[&str]) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{ "Effect": "Allow", "Action": actions, "Resource": resources }],
    })
}

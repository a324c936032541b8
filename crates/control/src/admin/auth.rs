//! Who may call the Admin API: by address (`allow_admin`), by key (`admin_key`), by role.
//!
//! The rule to know: the address is checked first, then CORS preflight and `HEAD /apisix/admin` are answered to
//! anyone, then a key is asked for.

use std::net::IpAddr;

use http::{HeaderMap, Method, StatusCode, header::COOKIE};
use ipnet::IpNet;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{answer::Answer, call::Args};

/// One of `deployment.admin.admin_key`.
#[derive(Clone, Debug)]
pub struct AdminKey {
    pub name: String,
    pub key: String,
    pub role: Role,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Admin,
    /// Reads only.
    Viewer,
}

/// Whether this address is let in. Without `allow_admin` every address is.
pub fn check_address(allow: &[IpNet], peer: Option<IpAddr>) -> Result<(), Answer> {
    let allowed = |ip: IpAddr| allow.iter().any(|net| net.contains(&ip.to_canonical()));
    if allow.is_empty() || peer.is_some_and(allowed) {
        return Ok(());
    }
    tracing::warn!(?peer, "an address outside allow_admin called the admin api");
    Err(Answer::refusal(StatusCode::FORBIDDEN, "this address is not in deployment.admin.allow_admin"))
}

/// Whether the key that came with the request may use this method.
pub fn check_key(keys: &[AdminKey], method: &Method, headers: &HeaderMap, args: &Args) -> Result<(), Answer> {
    let Some(given) = given_key(headers, args) else { return Err(refused("missing apikey")) };
    let Some(known) = keys.iter().find(|known| same(&known.key, &given)) else {
        return Err(refused("wrong apikey"));
    };
    if known.role == Role::Viewer && method != Method::GET {
        return Err(refused("invalid method for role viewer"));
    }
    Ok(())
}

/// `api_key` in the query, else the header, else the cookie `x_api_key`.
fn given_key(headers: &HeaderMap, args: &Args) -> Option<String> {
    if let Some(key) = args.get("api_key") {
        return Some(key.to_owned());
    }
    // nginx tells `-` and `_` in names of headers not apart.
    if let Some(key) = headers.get("x-api-key").or_else(|| headers.get("x_api_key")) {
        return Some(String::from_utf8_lossy(key.as_bytes()).into_owned());
    }
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == "x_api_key")
        .map(|(_, key)| key.to_owned())
}

/// Compares digests, so that the time taken tells nothing about the key.
fn same(known: &str, given: &str) -> bool {
    Sha256::digest(known) == Sha256::digest(given)
}

fn refused(why: &str) -> Answer {
    tracing::warn!(why, "failed to check the admin api's token");
    Answer::json(
        StatusCode::UNAUTHORIZED,
        json!({ "error_msg": "failed to check token", "description": why }),
    )
}

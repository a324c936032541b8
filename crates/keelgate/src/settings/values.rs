//! The little languages of `config.yaml`: times, sizes, percentages, listening addresses.
//!
//! The rule to know: a value that could not work is refused while it is read, so that the error has its line.

mod listen;

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

pub use listen::{Listen, Listens, Ports, StreamListen};

/// A time: a number of seconds, or nginx's `500ms`, `60s`, `1m30s`, `2h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time(pub Duration);

impl Time {
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

/// Reads nginx's notation of times.
pub fn parse_time(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * unit;
        rest = after.trim_start();
    }
    Duration::try_from_secs_f64(total).ok()
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = from.deserialize_any(Scalar("a time such as 3, 0.5, 60s or 1m30s"))?;
        parse_time(&text)
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a time such as 3, 0.5, 60s or 1m30s")))
    }
}

/// A number of bytes: `16384`, `64k`, `10m`, `1g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// Reads nginx's notation of sizes.
fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let (number, unit) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 1 << 10),
        Some(b'm') => (&lower[..lower.len() - 1], 1 << 20),
        Some(b'g') => (&lower[..lower.len() - 1], 1 << 30),
        _ => (lower.as_str(), 1_u64),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = from.deserialize_any(Scalar("a size such as 4096, 64k or 10m"))?;
        parse_size(&text)
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a size such as 4096, 64k or 10m")))
    }
}

/// nginx's `on` or `off`; YAML may have made a boolean of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch(pub bool);

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = from.deserialize_any(Scalar("`on` or `off`"))?;
        match text.trim() {
            "on" | "true" => Ok(Self(true)),
            "off" | "false" => Ok(Self(false)),
            other => Err(de::Error::custom(format!("`{other}` is neither `on` nor `off`"))),
        }
    }
}

/// nginx's number and size of buffers: `4 8k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    pub number: usize,
    pub size: usize,
}

impl Buffers {
    /// All of them together.
    pub const fn total(self) -> usize {
        self.number * self.size
    }
}

impl<'de> Deserialize<'de> for Buffers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// No head is larger, however it is cut.
        const MOST: u64 = 256 << 10;
        let text = from.deserialize_any(Scalar("a number and a size such as `4 8k`"))?;
        let read = || {
            let (number, size) = text.trim().split_once(char::is_whitespace)?;
            let (number, size) = (number.parse::<u64>().ok()?, parse_size(size)?);
            let fits = number > 0 && size >= 64 && number.checked_mul(size)? <= MOST;
            fits.then_some(Self { number: usize::try_from(number).ok()?, size: usize::try_from(size).ok()? })
        };
        read().ok_or_else(|| {
            de::Error::custom(format!(
                "`{text}` is not a number and a size such as `4 8k`, up to 256k together"
            ))
        })
    }
}

/// A part of a whole: `50%` or `0.5`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = from.deserialize_any(Scalar("a share such as 50% or 0.5"))?;
        let share = match text.trim().strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
            None => text.trim().parse::<f64>(),
        };
        share
            .ok()
            .filter(|share| (0.0..=1.0).contains(share))
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a share between 0% and 100%")))
    }
}

/// `auto` or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workers(pub Option<usize>);

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = from.deserialize_any(Scalar("`auto` or a number of workers"))?;
        match text.trim() {
            "auto" => Ok(Self(None)),
            number => number
                .parse()
                .ok()
                .filter(|workers| (1..=1024).contains(workers))
                .map(|workers| Self(Some(workers)))
                .ok_or_else(|| {
                    de::Error::custom(format!("`{text}` is neither `auto` nor a number from 1 to 1024"))
                }),
        }
    }
}

/// One of them or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "one value or a list")]
pub enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Self::Many(many) => many,
            Self::One(one) => vec![one],
        }
    }
}

/// Reads any scalar as its text.
struct Scalar(&'static str);

impl de::Visitor<'_> for Scalar {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_nginx_reads_them() {
        let ms = |text: &str| parse_time(text).map(|time| time.as_millis());
        assert_eq!(ms("3"), Some(3_000));
        assert_eq!(ms("0.5"), Some(500));
        assert_eq!(ms("60s"), Some(60_000));
        assert_eq!(ms("1m30s"), Some(90_000));
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("1h 5m"), Some(3_900_000));
        for text in ["", "s", "3x", "-1", "1 2", "soon"] {
            assert_eq!(if text.is_empty() { None } else { ms(text) }, None, "{text}");
        }
    }
}

//! Lists and maps as Lua writes them.
//!
//! The rule to know: Lua has one kind of table, so an empty list may come as `{}` and an empty map as `[]`; and
//! `null` is what is not there.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess},
};
use serde_json::{Map, Number, Value};

pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    from.deserialize_any(ListVisitor(PhantomData))
}

pub(super) fn map<'de, D: Deserializer<'de>>(from: D) -> Result<Map<String, Value>, D::Error> {
    from.deserialize_any(MapVisitor)
}

/// A whole number from 0; one beyond the type counts as the greatest of it, since Lua's numbers go on.
pub(super) fn count<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = whole(&Number::deserialize(from)?)?;
    u32::try_from(number.min(u32::MAX.into()))
        .map_err(|_| de::Error::custom(format!("{number} is less than 0")))
}

/// The same, or nothing.
pub(super) fn some_count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    Ok(Option::<Count>::deserialize(from)?.map(|Count(count)| count))
}

/// A whole number; one beyond the type counts as the last of it on this side.
pub(super) fn integer<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let number = whole(&Number::deserialize(from)?)?.clamp(i64::MIN.into(), i64::MAX.into());
    i64::try_from(number).map_err(de::Error::custom)
}

#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Count(#[serde(deserialize_with = "count")] pub u32);

fn whole<E: de::Error>(number: &Number) -> Result<i128, E> {
    if let Some(whole) = number.as_i128() {
        return Ok(whole);
    }
    #[allow(clippy::cast_possible_truncation, reason = "it ends where the type ends")]
    match number.as_f64() {
        Some(float) if float.fract() == 0.0 => Ok(float as i128),
        _ => Err(E::custom(format!("{number} is no whole number"))),
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> de::Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(1024));
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<T>, A::Error> {
        match map.next_key::<String>()? {
            None => Ok(Vec::new()),
            Some(_) => Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }
}

struct MapVisitor;

impl<'de> de::Visitor<'de> for MapVisitor {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, member)) = map.next_entry()? {
            members.insert(name, member);
        }
        Ok(members)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        match seq.next_element::<de::IgnoredAny>()? {
            None => Ok(Map::new()),
            Some(_) => Err(de::Error::invalid_type(de::Unexpected::Seq, &self)),
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Map::new())
    }
}

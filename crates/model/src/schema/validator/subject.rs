//! A value being checked: one that may be changed takes defaults, one that may not is only looked at.

use serde_json::Value;

pub(super) trait Subject {
    type Part<'a>: Subject
    where
        Self: 'a;

    fn get(&self) -> &Value;
    /// The same value, lent.
    fn part(&mut self) -> Self::Part<'_>;
    fn member(&mut self, name: &str) -> Option<Self::Part<'_>>;
    fn members(&mut self) -> impl Iterator<Item = (&str, Self::Part<'_>)>;
    fn items(&mut self) -> impl Iterator<Item = Self::Part<'_>>;
    /// Puts in an absent member.
    fn fill(&mut self, name: &str, default: &Value);
}

impl Subject for &Value {
    type Part<'a>
        = &'a Value
    where
        Self: 'a;

    fn get(&self) -> &Value {
        self
    }

    fn part(&mut self) -> Self::Part<'_> {
        self
    }

    fn member(&mut self, name: &str) -> Option<Self::Part<'_>> {
        Value::get(self, name)
    }

    fn members(&mut self) -> impl Iterator<Item = (&str, Self::Part<'_>)> {
        self.as_object().into_iter().flatten().map(|(name, member)| (name.as_str(), member))
    }

    fn items(&mut self) -> impl Iterator<Item = Self::Part<'_>> {
        self.as_array().into_iter().flatten()
    }

    fn fill(&mut self, _: &str, _: &Value) {}
}

impl Subject for &mut Value {
    type Part<'a>
        = &'a mut Value
    where
        Self: 'a;

    fn get(&self) -> &Value {
        self
    }

    fn part(&mut self) -> Self::Part<'_> {
        self
    }

    fn member(&mut self, name: &str) -> Option<Self::Part<'_>> {
        self.get_mut(name)
    }

    fn members(&mut self) -> impl Iterator<Item = (&str, Self::Part<'_>)> {
        self.as_object_mut().into_iter().flatten().map(|(name, member)| (name.as_str(), member))
    }

    fn items(&mut self) -> impl Iterator<Item = Self::Part<'_>> {
        self.as_array_mut().into_iter().flatten()
    }

    fn fill(&mut self, name: &str, default: &Value) {
        if self.is_array() {
            // An empty list is an empty object to APISIX, and with a member it is an object to everyone.
            **self = Value::Object(serde_json::Map::new());
        }
        if let Some(members) = self.as_object_mut() {
            members.insert(name.to_owned(), default.clone());
        }
    }
}

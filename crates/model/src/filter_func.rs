//! `filter_func`: a condition in Lua.
//!
//! The rule to know: code is a text everywhere but in the machine of one thread, which reads it when it first runs
//! there. It sees variables and nothing else: no files, no processes, no modules, no other code's globals. It has so
//! many steps and so much memory, and whatever goes wrong means that the condition does not hold.

mod patterns;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    rc::Rc,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mlua::{Error, Function, HookTriggers, Lua, LuaOptions, StdLib, Table, Value, VmState, chunk::ChunkMode};
use serde_json::Value as Json;

use crate::{byte_text, expr::Operand};

/// Instructions one call may take.
const MOST_STEPS: u32 = 200_000;
/// Instructions between two looks at how many it were.
const STRIDE: u32 = 1_000;
/// How long one call may take, whatever it does. So long that a busy machine does not matter.
const LONGEST: Duration = Duration::from_secs(1);
/// Bytes of one machine, which runs the code of all routes.
const MOST_MEMORY: usize = 16 * 1024 * 1024;

/// A condition in Lua that can be loaded.
#[derive(Clone)]
pub struct FilterFunc(Arc<Code>);

struct Code {
    text: Box<str>,
    /// Whether it has failed before.
    failed: AtomicBool,
}

/// Why a condition does not hold that could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Failure {
    why: String,
    /// Whether this code fails for the first time.
    pub first: bool,
}

impl FilterFunc {
    /// Loads code. Errors are APISIX's whole text.
    pub fn compile(text: &str) -> Result<Self, String> {
        let code = Arc::new(Code { text: text.into(), failed: AtomicBool::new(false) });
        match with_machine(|machine| machine.function(&code).map(drop)) {
            Ok(()) => Ok(Self(code)),
            Err(Error::FromLuaConversionError { .. }) => Err("'filter_func' should be a function".to_owned()),
            Err(error) => Err(format!("failed to load 'filter_func' string: {}", first_line(&error))),
        }
    }

    /// Whether it holds, for variables as `lookup` gives them.
    pub fn holds<'v>(&self, lookup: &dyn Fn(&str) -> Option<Operand<'v>>) -> Result<bool, Failure> {
        with_machine(|machine| machine.ask(&self.0, lookup)).map_err(|error| Failure {
            why: first_line(&error),
            first: !self.0.failed.swap(true, Ordering::Relaxed),
        })
    }
}

impl fmt::Debug for FilterFunc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilterFunc({})", self.0.text)
    }
}

thread_local! {
    static MACHINE: RefCell<Option<Machine>> = const { RefCell::new(None) };
}

/// Runs `work` in the machine of this thread. One that has run out of memory is thrown away with all it holds.
fn with_machine<T>(work: impl FnOnce(&mut Machine) -> Result<T, Error>) -> Result<T, Error> {
    MACHINE.with_borrow_mut(|kept| {
        let machine = match kept {
            Some(machine) => machine,
            None => kept.insert(Machine::new()?),
        };
        let done = work(machine);
        if done.as_ref().is_err_and(is_out_of_memory) {
            *kept = None;
        }
        done
    })
}

fn is_out_of_memory(error: &Error) -> bool {
    match error {
        Error::MemoryError(_) => true,
        Error::CallbackError { cause, .. } => is_out_of_memory(cause),
        _ => false,
    }
}

/// Lua, on one thread.
struct Machine {
    lua: Lua,
    /// Instructions the call under way has taken, steps of its patterns, and when it began.
    steps: Rc<Cell<u32>>,
    pattern_steps: patterns::Steps,
    began: Rc<Cell<Instant>>,
    functions: HashMap<*const Code, (Weak<Code>, Function)>,
}

impl Machine {
    fn new() -> Result<Self, Error> {
        let lua = Lua::new_with(StdLib::TABLE | StdLib::STRING | StdLib::MATH, LuaOptions::default())?;
        for name in HIDDEN {
            lua.globals().set(*name, Value::Nil)?;
        }
        lua.globals().get::<Table>("string")?.set("dump", Value::Nil)?;
        lua.set_memory_limit(MOST_MEMORY)?;
        let (steps, pattern_steps) = (Rc::new(Cell::new(0)), Rc::default());
        patterns::install(&lua, &pattern_steps)?;
        let began = Rc::new(Cell::new(Instant::now()));
        let (counted, since) = (Rc::clone(&steps), Rc::clone(&began));
        lua.set_hook(HookTriggers::new().every_nth_instruction(STRIDE), move |_, _| {
            counted.set(counted.get() + STRIDE);
            if counted.get() > MOST_STEPS {
                return Err(Error::runtime(format!("it takes more than {MOST_STEPS} steps")));
            }
            if since.get().elapsed() > LONGEST {
                return Err(Error::runtime("it takes too long"));
            }
            Ok(VmState::Continue)
        })?;
        Ok(Self { lua, steps, pattern_steps, began, functions: HashMap::new() })
    }

    /// Another call: nothing of it is used up yet.
    fn begin(&self) {
        self.steps.set(0);
        self.pattern_steps.set(0);
        self.began.set(Instant::now());
    }

    fn function(&mut self, code: &Arc<Code>) -> Result<Function, Error> {
        if let Some((_, function)) = self.functions.get(&Arc::as_ptr(code)) {
            return Ok(function.clone());
        }
        // Nobody asks any more what only old plans knew. A `Weak` keeps the address from being used again.
        self.functions.retain(|_, (code, _)| code.strong_count() > 0);
        let own = self.lua.create_table()?;
        let meta = self.lua.create_table()?;
        meta.set("__index", self.lua.globals())?;
        own.set_metatable(Some(meta))?;
        let text = format!("return {}", code.text);
        self.begin();
        let chunk =
            self.lua.load(&*text).set_name(text.clone()).set_mode(ChunkMode::Text).set_environment(own);
        let function: Function = chunk.eval()?;
        self.functions.insert(Arc::as_ptr(code), (Arc::downgrade(code), function.clone()));
        Ok(function)
    }

    fn ask<'v>(
        &mut self,
        code: &Arc<Code>,
        lookup: &dyn Fn(&str) -> Option<Operand<'v>>,
    ) -> Result<bool, Error> {
        let function = self.function(code)?;
        self.begin();
        self.lua.scope(|scope| {
            let index = scope.create_function(|lua, (_, name): (Value, String)| match lookup(&name) {
                None => Ok(Value::Nil),
                Some(Operand::Text(text)) => lua.create_string(byte_text::write(&text)).map(Value::String),
                Some(Operand::Json(json)) => value(lua, &json),
            })?;
            let (vars, meta) = (self.lua.create_table()?, self.lua.create_table()?);
            meta.set("__index", index)?;
            vars.set_metatable(Some(meta))?;
            let answer: Value = function.call(vars)?;
            Ok(!matches!(answer, Value::Nil | Value::Boolean(false)))
        })
    }
}

/// What would lead out, catch the end of its steps, or reach what others share.
const HIDDEN: &[&str] = &[
    "_G",
    "collectgarbage",
    "coroutine",
    "dofile",
    "getfenv",
    "getmetatable",
    "load",
    "loadfile",
    "loadstring",
    "module",
    "newproxy",
    "package",
    "pcall",
    "print",
    "require",
    "setfenv",
    "xpcall",
];

fn value(lua: &Lua, json: &Json) -> Result<Value, Error> {
    Ok(match json {
        Json::Null => Value::NULL,
        Json::Bool(flag) => Value::Boolean(*flag),
        Json::Number(n) => Value::Number(n.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Value::String(lua.create_string(byte_text::write(text))?),
        Json::Array(items) => {
            let table = lua.create_table()?;
            for item in items {
                table.raw_push(value(lua, item)?)?;
            }
            Value::Table(table)
        }
        Json::Object(members) => {
            let table = lua.create_table()?;
            for (name, member) in members {
                table.raw_set(&**name, value(lua, member)?)?;
            }
            Value::Table(table)
        }
    })
}

/// Lua's own words, without where they were said.
fn first_line(error: &Error) -> String {
    let text = match error {
        Error::SyntaxError { message, .. } | Error::RuntimeError(message) | Error::MemoryError(message) => {
            message.clone()
        }
        Error::CallbackError { cause, .. } => return first_line(cause),
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(code: &str) -> Result<bool, String> {
        let code = FilterFunc::compile(code)?;
        let vars = |name: &str| match name {
            "arg_name" => Some("json".into()),
            "arg_id" => Some("7".into()),
            "graphql_root_fields" => Some(json!(["owner", "repo"]).into()),
            _ => None,
        };
        code.holds(&vars).map_err(|error| error.to_string())
    }

    #[test]
    fn conditions() {
        for (code, expected) in [
            ("function(vars) return vars.arg_name == 'json' end", true),
            ("function(vars) return vars['arg_name'] == 'x' end", false),
            ("function(vars) return tonumber(vars.arg_id) % 4 > 2 end", true),
            ("function(vars) return vars.none end", false),
            ("function(vars) return vars.arg_name:gsub('j(.)', '%1') == 'son' end", true),
            ("function(vars) for w in ('a b'):gmatch('%a') do n = (n or 0) + 1 end return n == 2 end", true),
            ("function(vars) return not vars.none and vars.arg_name:find('^js') end", true),
            ("function(vars) return vars.graphql_root_fields[2] == 'repo' end", true),
            ("function() end", false),
            ("function() local t = {3, 1}; table.sort(t); return math.max(t[1], 2) == 2 end", true),
        ] {
            assert_eq!(ask(code), Ok(expected), "{code}");
        }
    }

    #[test]
    fn what_cannot_be_loaded() {
        assert_eq!(
            ask("function(vars) ").unwrap_err(),
            "failed to load 'filter_func' string: [string \"return function(vars) \"]:1: 'end' expected near '<eof>'"
        );
        assert_eq!(ask("1").unwrap_err(), "'filter_func' should be a function");
        assert!(FilterFunc::compile("\u{1b}Lua").is_err());
    }

    #[test]
    fn nothing_leads_out() {
        for code in [
            "function() return io.open('/etc/passwd') end",
            "function() return os.getenv('HOME') end",
            "function() return require('os') end",
            "function() return loadstring('return 1')() end",
            "function() return string.dump(function() end) end",
            "function() return getmetatable('').__index end",
            "function() return _G.string end",
            "function() return debug.getregistry() end",
        ] {
            let error = ask(code).unwrap_err();
            assert!(error.contains("attempt to"), "{code}: {error}");
        }
    }

    #[test]
    fn steps_and_memory_are_bounded_and_the_next_call_is_not_harmed() {
        let endless = ask("function() while true do end end").unwrap_err();
        assert!(endless.contains("200000 steps"), "{endless}");
        ask("function() while true do string.format('%d', 1) end end").unwrap_err();
        ask("function() return string.rep('x', 1e9) end").unwrap_err();
        ask("function() local t = {} for i = 1, 1e9 do t[i] = {} end end").unwrap_err();
        let pattern =
            ask("function() return string.find(('a'):rep(30000), ('.-'):rep(20) .. 'b') end").unwrap_err();
        assert!(pattern.contains("2000000 steps"), "{pattern}");
        ask("function() return ('a'):rep(9999):find(('a?'):rep(9999)) end").unwrap_err();
        ask("function() return ('a'):rep(1e6):gsub('a', ('a'):rep(1e4)) end").unwrap_err();
        ask("function() local s = ('a'):rep(1e6) while true do s:upper() end end").unwrap_err();
        assert!(ask("function(vars) return vars.arg_id == '7' end").unwrap());
    }

    #[test]
    fn nothing_is_shared_between_two_and_nothing_lasts_beyond_a_call() {
        assert!(ask("function() seen = true; return seen end").unwrap());
        assert!(!ask("function() return seen end").unwrap());
        let hoarder =
            FilterFunc::compile("function(vars) old = old or vars; return old.arg_name end").unwrap();
        let vars = |_: &str| Some("x".into());
        assert!(hoarder.holds(&vars).unwrap());
        let failure = hoarder.holds(&vars).unwrap_err();
        assert!(failure.first);
        assert!(!hoarder.holds(&vars).unwrap_err().first);
    }
}

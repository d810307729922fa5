//! Long calls: work on a thread of libuv's pool, a promise in JavaScript.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kindling_core::{Error, Result};
use napi::bindgen_prelude::{AsyncTask, ToNapiValue, TypeName};
use napi::{Env, Task};

use crate::error::{from_panic, to_napi};

type Work<K, T> = Box<dyn FnOnce(&mut K) -> Result<T> + Send>;

/// One call under way. `held` (leases of the objects it uses) is given back on JavaScript's thread, when the promise
/// settles: until then a second call on the same object is refused, however fast the first one was.
pub struct Job<K, T> {
    held: K,
    work: Option<Work<K, T>>,
}

/// Runs `work` off the event loop; the promise gives what it returns.
pub fn spawn<K, T>(
    held: K,
    work: impl FnOnce(&mut K) -> Result<T> + Send + 'static,
) -> AsyncTask<Job<K, T>>
where
    K: Send + 'static,
    T: ToNapiValue + TypeName + Send + 'static,
{
    AsyncTask::new(Job { held, work: Some(Box::new(work)) })
}

impl<K, T> Task for Job<K, T>
where
    K: Send + 'static,
    T: ToNapiValue + TypeName + Send + 'static,
{
    type Output = T;
    type JsValue = T;

    fn compute(&mut self) -> napi::Result<T> {
        let Some(work) = self.work.take() else {
            return Err(to_napi(Error::Internal("a task ran twice".to_owned())));
        };
        // Nothing unwinds into libuv: a panic becomes an error of this call.
        catch_unwind(AssertUnwindSafe(|| work(&mut self.held)))
            .unwrap_or_else(|panic| Err(from_panic(panic.as_ref())))
            .map_err(to_napi)
    }

    fn resolve(&mut self, _env: Env, output: T) -> napi::Result<T> {
        Ok(output)
    }
}

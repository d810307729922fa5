//! Long calls, which run on a thread of libuv's pool and return a promise to JavaScript.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kindling_core::{Error, Result};
use napi::bindgen_prelude::{AsyncTask, ToNapiValue, TypeName};
use napi::{Env, Task};

use crate::error::{from_panic, to_napi};

type Work<K, T> = Box<dyn FnOnce(&mut K) -> Result<T> + Send>;

/// A pending call.
///
/// `held` are the guards of the objects in use. They are dropped on the JavaScript thread when the
/// promise settles, so whether a second call is refused does not depend on how fast the first one
/// ran.
pub struct Job<K, T> {
    held: K,
    work: Option<Work<K, T>>,
}

/// Runs `work` off the event loop. The promise resolves to its result.
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
        // A panic must not unwind into libuv; it becomes an error of this call.
        catch_unwind(AssertUnwindSafe(|| work(&mut self.held)))
            .unwrap_or_else(|panic| Err(from_panic(panic.as_ref())))
            .map_err(to_napi)
    }

    fn resolve(&mut self, _env: Env, output: T) -> napi::Result<T> {
        Ok(output)
    }
}

// Repeats an operation of which it is known that nothing has happened.
#pragma once

#include <optional>
#include <type_traits>
#include <utility>

#include "backends/client/backoff.h"
#include "backends/client/options.h"
#include "base/types.h"
#include "runtime/context.h"
#include "runtime/loop.h"
#include "runtime/task.h"

namespace prism::client {

// How long to wait before trying again; nullopt: not at all. That is: only Retry::safe, not where the server says
// that it has too much to do, not more often than the options say, and not where the wait would outlast the deadline.
std::optional<Clock::duration> wait_before_retry(const Error& error, const Context& context,
                                                 const RetryOptions& options, Backoff& backoff);

// `operation` is called with the context for each try and gives a Task<Result<T>>; it is kept until the last one has
// ended and must be able to start anew (no consumed stream). A lambda may capture, as long as it is no coroutine
// itself:
//
//   co_return co_await retry_safe(loop_, context, options_.retry, [this, keys](Context c) { return get_once(c, keys);
//   });
//
// Gives the last result. Where the context ends during a wait, the last error.
template <class F>
auto retry_safe(EventLoop& loop, Context context, RetryOptions options, F operation)
    -> std::invoke_result_t<F&, Context> {
  auto result = co_await operation(context);
  if (result || result.error().retry != Retry::safe) co_return result;
  Backoff backoff(options.backoff, options.max_backoff);
  while (true) {
    const auto wait = wait_before_retry(result.error(), context, options, backoff);
    if (!wait || !co_await sleep_for(loop, context, *wait)) co_return result;
    result = co_await operation(context);
    if (result) co_return result;
  }
}

}  // namespace prism::client

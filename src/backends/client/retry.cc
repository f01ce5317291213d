#include "backends/client/retry.h"

#include <algorithm>

namespace prism::client {

std::optional<Clock::duration> wait_before_retry(const Error& error, const Context& context,
                                                 const RetryOptions& options, Backoff& backoff) {
  if (error.retry != Retry::safe || error.code == Code::cancelled || error.code == Code::resource_exhausted) return {};
  if (backoff.tries() + 1 >= options.attempts || context.stopped()) return {};
  const Clock::duration wait = std::max<Clock::duration>(backoff.next(), error.retry_after);
  if (context.deadline() != Clock::time_point::max() && Clock::now() + wait >= context.deadline()) return {};
  return wait;
}

}  // namespace prism::client

// SIGINT and SIGTERM as something to wait for, instead of handlers that may do almost nothing.
#pragma once

#include <chrono>
#include <optional>

namespace prism::cli {

// Make it before any other thread: they inherit that the signals are blocked. SIGPIPE is ignored from then on.
class Signals {
 public:
  enum class Event { signal, wake, timeout };

  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // One thread at a time. None: without end.
  Event wait(std::optional<std::chrono::steady_clock::time_point> until = {});
  void wake();  // any thread: wait() returns, now or when it is called next

 private:
  int signals_;
  int wake_;
};

}  // namespace prism::cli

// SIGINT, SIGTERM and SIGHUP as something to wait for, instead of handlers that may do almost nothing.
#pragma once

#include <chrono>
#include <optional>

namespace prism::cli {

// Make it before any other thread: they inherit that the signals are blocked. SIGPIPE is ignored from then on.
class Signals {
 public:
  enum class Event { signal /*SIGINT or SIGTERM*/, hangup, wake, readable, timeout };

  // `hangup`: SIGHUP is waited for too; else it does what it usually does.
  explicit Signals(bool hangup = false);
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // One thread at a time. None: without end. `descriptor`: a file that is waited for too, and whoever waits reads; -1:
  // none.
  Event wait(std::optional<std::chrono::steady_clock::time_point> until = {}, int descriptor = -1);
  void wake();  // any thread: wait() returns, now or when it is called next

 private:
  int signals_;
  int wake_;
};

}  // namespace prism::cli

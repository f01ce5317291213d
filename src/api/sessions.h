// Sessions of one process: what a client was told once (its namespace) is found again by the id it sends with each
// call.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/types.h"

namespace prism::api {

// Sessions stay in the memory of one process: after a restart, or on another server, they are unknown, and the client,
// told SESSION_NOT_FOUND, opens another. In open mode a session acts for nobody in particular.
//
// Thread-safe. A session that no call has used for `idle_timeout` has ended; calls under way keep it alive.
class Sessions {
 public:
  struct Options {
    Clock::duration idle_timeout = std::chrono::minutes(30);
    std::size_t limit = 100'000;  // sessions at once; more are TOO_MANY_SESSIONS
  };

  struct Session {
    std::string id;
    std::string namespace_name;  // empty: unbound
    std::string client_name;
    std::string client_version;
    WallTime opened{};

   private:
    friend class Sessions;
    mutable std::atomic<std::int64_t> last_used{0};  // Clock ticks
    mutable std::atomic<int> uses{0};                // calls under way
  };

  // Keeps its session alive, and counts its idle time from its own end.
  class Use {
   public:
    Use() = default;
    Use(Use&&) noexcept = default;
    Use& operator=(Use&& other) noexcept;
    ~Use() { end(); }
    const Session* operator->() const noexcept { return session_.get(); }
    explicit operator bool() const noexcept { return session_ != nullptr; }

   private:
    friend class Sessions;
    explicit Use(std::shared_ptr<const Session> session);
    void end() noexcept;
    std::shared_ptr<const Session> session_;
  };

  Sessions() : Sessions(Options()) {}
  explicit Sessions(Options options) : options_(options) {}

  Clock::duration idle_timeout() const noexcept { return options_.idle_timeout; }
  // TOO_MANY_SESSIONS. The caller has checked that the namespace exists.
  Result<Use> open(std::string namespace_name, std::string client_name, std::string client_version);
  Result<Use> use(std::string_view id);  // SESSION_NOT_FOUND
  void close(std::string_view id);       // closing an unknown one does nothing; calls under way finish
  std::size_t count() const;

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  bool expired(const Session& session, Clock::time_point now) const noexcept;
  void sweep(Clock::time_point now);  // with the mutex held exclusively

  const Options options_;
  mutable std::shared_mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<const Session>, Hash, std::equal_to<>>
      sessions_;               // guarded by mutex_
  Clock::time_point swept_{};  // guarded by mutex_
};

}  // namespace prism::api

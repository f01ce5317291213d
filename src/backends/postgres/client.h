// What a process has on one database: connections that all callers share (point statements), connections that one
// caller has for itself (transactions, queries), and one that hears of changes.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "backends/client/breaker.h"
#include "backends/client/retry.h"
#include "backends/postgres/connection.h"
#include "backends/postgres/options.h"
#include "capabilities/backend.h"
#include "runtime/scope.h"

namespace prism::postgres {

class Client;

// An exclusive connection with at most one flight under way. On the loop's thread only, but for the last reference.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<Client> client, std::shared_ptr<Connection> connection)
      : client_(std::move(client)), connection_(std::move(connection)) {}

  // Sends and waits. False: the waiter was let go; what runs is cancelled, and the session is over.
  // The flight's statements must live until it has come back: `owner` keeps them. `cancels`: false for a COMMIT, which
  // is let come to its end.
  Task<bool> run(Context context, std::shared_ptr<Flight> flight, std::shared_ptr<const void> owner,
                 bool cancels = true);
  Task<bool> run_script(Context context, std::shared_ptr<Flight> flight, std::string text);
  // Takes what runs back, rolls back what is open, and gives the connection to the pool.
  void abandon();
  Connection& connection() noexcept { return *connection_; }

 private:
  Task<bool> wait(Context context, std::shared_ptr<OneShot<void>> shot);
  std::shared_ptr<OneShot<void>> expect(Flight& flight, std::shared_ptr<const void> owner);
  void cancel();
  void rest();

  std::shared_ptr<Client> client_;
  std::shared_ptr<Connection> connection_;
  bool running_ = false;
  bool cancelling_ = false;
  bool cancels_ = true;  // what runs
  bool over_ = false;
  bool given_back_ = false;
};

// The one owner of a session; it is abandoned with it. Any thread.
class Held {
 public:
  Held() = default;
  Held(EventLoop& loop, std::shared_ptr<Session> session) : loop_(&loop), session_(std::move(session)) {}
  Held(Held&& other) noexcept = default;
  Held& operator=(Held&& other) noexcept {
    std::swap(loop_, other.loop_);
    std::swap(session_, other.session_);
    return *this;
  }
  ~Held();
  const std::shared_ptr<Session>& session() const noexcept { return session_; }
  Session* operator->() const noexcept { return session_.get(); }

 private:
  EventLoop* loop_ = nullptr;
  std::shared_ptr<Session> session_;
};

// Who waits for changes of which table. Any thread.
class Changes {
 public:
  explicit Changes(EventLoop& loop) : loop_(loop) {}
  std::shared_ptr<Notifier> of(const std::string& table);
  void notify(const std::string& table);  // "*": all

 private:
  EventLoop& loop_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Notifier>, std::less<>> tables_;  // guarded by mutex_
};

// Statements that are carried out on a shared connection, among those of others.
struct PointRequest {
  Batch<Statement> statements;
  bool together = false;   // all or none; else each for itself
  bool position = false;   // of the commit
  bool quiet = false;      // nobody waits for changes of its tables
  std::string order = {};  // requests that lock rows of one table are sorted by it, so that they wait in one order
};
struct PointAnswer {
  Batch<Result<SqlRows>> results;  // one a statement
  std::uint64_t lsn = 0;           // behind the commit; 0: not asked for, or not heard
  Clock::time_point begun{}, executed{};
};

// Gives the place in the write-ahead log that the server has come to, or, of a standby, has repeated.
const Statement& position_statement();
std::uint64_t read_position(const std::optional<Result<SqlRows>>& outcome);  // of it; 0: none

class Client : public std::enable_shared_from_this<Client> {
 public:
  static std::shared_ptr<Client> make(Runtime& runtime, std::string backend, Options options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  EventLoop& loop() noexcept { return loop_; }
  const Options& options() const noexcept { return options_; }
  const client::Peer& peer() const noexcept { return peer_; }
  Id128 incarnation() const;  // zero until the server has been reached
  Position position(std::uint64_t lsn) const;

  // Any thread; resumes on the loop. An error is that of all statements; together: of the one in metadata "statement".
  Task<Result<PointAnswer>> point(Context context, PointRequest request);
  // BACKEND_OVERLOADED after the pool's wait.
  Task<Result<Held>> acquire(Context context);
  // One statement in a read-only transaction of its own.
  Task<Result<SqlRows>> query(Context context, Statement statement, std::size_t max_rows);
  // Statements of Prism's own that make a table, all or nothing; once a client. Nothing happens where it exists.
  Task<Result<void>> make_tables(Context context, std::string table, std::vector<std::string> ddl);
  // Statements of Prism's own on a table of its own, which is made where it is missing; see point() and make_tables().
  Task<Result<PointAnswer>> on_table(Context context, std::string table, std::vector<std::string> ddl,
                                     std::shared_ptr<const PointRequest> request);
  void changed(const std::set<std::string>& tables);  // on the loop
  // Begins to listen for what others change.
  Task<void> wait_for_change(Context context, std::string table, Clock::duration at_most);

  Task<Result<void>> check(Context context);
  ConnectionUse use() const;
  bool closed() const noexcept { return closed_.load(std::memory_order_relaxed); }
  Scope& scope() noexcept { return scope_; }  // tasks of the capabilities; joined by close()
  Task<void> close(Context context);

  // The error of a flight that was lost. `reads`: it can have changed nothing.
  Error lost(const Flight& flight, bool reads) const;
  Error closing() const;
  // "SET LOCAL statement_timeout = ..." where the context leaves less time than the options; else empty.
  std::string time_limit(const Context& context) const;

  template <class T>
  Task<Outcome> wait(Context context, std::shared_ptr<OneShot<T>> shot);

 private:
  friend class Session;
  struct Unit;
  class Ride;

  Client(Runtime& runtime, std::string backend, Options options);

  // point
  void pump();
  void take_units(std::deque<std::shared_ptr<Unit>>& queue, std::vector<std::shared_ptr<Unit>>& units);
  void fail_queued(const Error& error);
  Task<void> add_point_connection(std::shared_ptr<Client> self);
  void landed(const std::shared_ptr<Connection>& connection);
  // exclusive
  void grow();
  Task<void> add_exclusive_connection(std::shared_ptr<Client> self);
  void hand_over(std::shared_ptr<Connection> connection);
  void give_back(std::shared_ptr<Connection> connection);
  // all
  Task<Result<std::shared_ptr<Connection>>> connect();
  Task<Result<void>> make_once(Context context, std::string table, std::vector<std::string> ddl);
  Task<void> listen(std::shared_ptr<Client> self);
  void start_listening();
  void tell_others();
  void note();

  EventLoop& loop_;
  const Options options_;
  const client::Peer peer_;
  client::Breaker breaker_;
  std::unique_ptr<OffloadPool> pool_;  // connecting and cancelling block
  std::shared_ptr<Changes> changes_;
  Scope scope_;
  std::atomic<bool> closed_{false};
  std::atomic<bool> listening_asked_{false};
  mutable std::mutex mutex_;
  Id128 incarnation_{};  // guarded by mutex_
  ConnectionUse use_;    // guarded by mutex_

  // On the loop's thread only.
  std::deque<std::shared_ptr<Unit>> reads_, writes_;
  std::size_t queued_bytes_ = 0;
  std::vector<std::shared_ptr<Connection>> point_;  // alive
  std::vector<std::shared_ptr<Connection>> free_;   // of these, without a flight
  std::size_t point_connecting_ = 0;
  Clock::time_point no_growth_before_{};
  std::vector<std::shared_ptr<Connection>> idle_;  // exclusive, latest used last
  std::set<std::shared_ptr<Connection>> in_use_;   // exclusive
  std::size_t exclusive_connecting_ = 0;
  std::deque<std::shared_ptr<OneShot<Result<Held>>>> waiting_;
  std::shared_ptr<Connection> listener_;  // null: none now
  std::set<std::string> untold_;          // tables
  bool telling_ = false;
  std::set<std::string> made_;                               // tables of make_tables()
  std::map<std::string, std::shared_ptr<Notifier>> making_;  // those that somebody is making now
};

// Repeats what has failed without having happened and may go well the next time: the connection could not be made, or
// broke before anything was sent; a serialization failure or a deadlock; a plan that is out of date.
bool worth_repeating(const Error& error) noexcept;
template <class F>
auto repeated(std::shared_ptr<Client> client, Context context, F operation) -> std::invoke_result_t<F&, Context> {
  prism::client::Backoff backoff(client->options().retry.backoff, client->options().retry.max_backoff);
  while (true) {
    auto result = co_await operation(context);
    if (result || !worth_repeating(result.error())) co_return result;
    const auto wait = prism::client::wait_before_retry(result.error(), context, client->options().retry, backoff);
    if (!wait || !co_await sleep_for(client->loop(), context, *wait)) co_return result;
  }
}

}  // namespace prism::postgres

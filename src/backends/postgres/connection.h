// One connection in pipeline mode, on one loop.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backends/postgres/errors.h"
#include "backends/postgres/options.h"
#include "base/ids.h"
#include "capabilities/sql_database.h"
#include "runtime/loop.h"

struct pg_conn;    // of libpq
struct pg_result;  // likewise

namespace prism::postgres {

// One message to the server and what came of it.
struct Item {
  enum class Kind : std::uint8_t {
    statement,  // prepared once a connection
    control,    // a text of Prism's own, without values: BEGIN, SET LOCAL, COMMIT
    sync,       // ends what is carried out together; an error before it skips what is left up to here
  };
  Kind kind = Kind::sync;
  const Statement* statement = nullptr;  // lives until the flight has come back
  std::string text;                      // control
  std::size_t max_rows = SIZE_MAX;       // rows beyond are not kept

  static Item of(const Statement& s, std::size_t max_rows = SIZE_MAX) {
    return {.kind = Kind::statement, .statement = &s, .text = {}, .max_rows = max_rows};
  }
  static Item control(std::string text) {
    return {.kind = Kind::control, .statement = nullptr, .text = std::move(text)};
  }
  static Item sync() { return {}; }

  // nullopt: it was skipped, or the connection broke before its answer. Of a sync: no rows; the error of the commit.
  std::optional<Result<SqlRows>> outcome;
  SqlRows partial;           // what has come so far
  std::size_t dropped = 0;   // rows beyond max_rows
  std::string tag;           // control: what the server says that it did, "COMMIT"
  Clock::time_point done{};  // when the outcome came
};

// What is sent at once; the connection tells when all of it has been answered, or never will be.
struct Flight {
  std::vector<Item> items;
  std::move_only_function<void()> done;  // on the loop; called exactly once
  // The connection broke. Where `ended` is set, the server had said so before it came to the next sync: nothing since
  // the last answered sync has happened.
  std::optional<Failure> lost;
  bool ended = false;
  bool sent = false;  // or part of it
  // Called once, when many more rows have come than were asked for: it may be worth a cancel().
  std::move_only_function<void()> excess;
};

// Everything on the loop's thread but open(), cancel's work and the destructor of the last reference.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  struct Handle;  // of a server that admits us; owns the library's connection until it is given to a loop
  // Blocks, for as long as the options' `timeouts.connect` at most; ends soon after the stop. Any thread.
  static Result<std::shared_ptr<Handle>> open(const Options& options, const client::Peer& peer, std::stop_token stop);

  // `patience`: a server that says nothing for so long while a flight is under way is given up.
  Connection(EventLoop& loop, std::shared_ptr<Handle> handle, client::Peer peer, Clock::duration patience);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  void start();  // begins to listen to the socket

  // One flight after the other. False: the connection is of no more use, and nothing was sent.
  bool send(std::shared_ptr<Flight> flight);
  // A text of one or more statements as it is, all or nothing; only when nothing else is under way. Its outcome is that
  // of the flight's only item.
  bool run_script(std::string text, std::shared_ptr<Flight> flight);
  bool busy() const noexcept { return !expected_.empty(); }
  bool usable() const noexcept { return !closed_; }
  bool in_transaction() const;  // also: it is not known
  const Id128& incarnation() const noexcept;
  void forget_statements();  // all are prepared anew
  void close();              // flights under way are told that the connection broke

  // Asks the server, on the pool's thread, to end what it is doing; `after` runs on the loop when it has been asked.
  void cancel(OffloadPool& pool, std::move_only_function<void()> after);

  std::function<void()> on_lost;  // also after close(); once
  std::function<void(const std::string& payload, bool own)> on_notification;

 private:
  struct Expected {
    enum class Kind : std::uint8_t { prepare, item, script, aside };
    Kind kind = Kind::item;
    std::shared_ptr<Flight> flight;  // aside: none
    std::size_t index = 0;
    std::string name;  // prepare: of the statement
    std::string key;   // prepare
  };
  struct Prepared {
    std::string name;
    bool confirmed = false;
    std::uint64_t group = 0;  // of messages between two syncs; valid while not confirmed
    std::list<std::string>::iterator used;
  };

  void wait_readable();
  void wait_writable();
  void on_readable();
  void flush();
  void watch();
  void process();
  void take(Expected& expected, pg_result* result);
  void ended(const Expected& expected);  // no more results of it
  bool put(const std::shared_ptr<Flight>& flight, std::size_t index);
  bool put_aside(const std::string& text);
  bool put_statement(const std::shared_ptr<Flight>& flight, std::size_t index);
  void expect(Expected expected);
  void single_rows();  // of the answer that comes next
  void lose(Failure failure);
  void tell();

  EventLoop& loop_;
  std::shared_ptr<Handle> handle_;
  pg_conn* connection_;
  client::Peer peer_;
  std::unique_ptr<struct Socket> socket_;
  std::deque<Expected> expected_;
  std::unordered_map<std::string, Prepared> prepared_;
  std::list<std::string> by_use_;  // keys of prepared_, latest first
  std::uint64_t names_ = 0;
  std::uint64_t group_ = 0;
  const Clock::duration patience_;
  Clock::time_point heard_{};  // the last of the server, or the beginning of the flight
  bool watching_ = false;
  bool closed_ = false;
  bool writing_ = false;
  bool deallocate_all_ = false;
  std::optional<Failure> fatal_;  // what the server said before it ended the connection
  bool fatal_before_sync_ = false;
  std::vector<std::shared_ptr<Flight>> back_;  // whose `done` is to be called
  bool telling_ = false;
};

}  // namespace prism::postgres

#include "backends/postgres/client.h"

#include <algorithm>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <tuple>
#include <utility>

#include "backends/postgres/values.h"
#include "telemetry/log.h"

namespace prism::postgres {

namespace {

constexpr std::size_t kMostQueuedBytes = 64UL << 20;
constexpr std::size_t kFlightStatements = 512;
constexpr std::size_t kFlightBytes = 4UL << 20;
constexpr std::size_t kConnectThreads = 2;
constexpr auto kTellAfter = std::chrono::milliseconds(10);  // changes of this time are told others at once
constexpr auto kCloseGrace = std::chrono::seconds(5);
constexpr auto kLateAnswer = std::chrono::seconds(2);  // after statement_timeout
constexpr auto kLongDdl = std::chrono::minutes(1);
constexpr auto kGrowthPause = std::chrono::seconds(1);     // where a further connection was refused
constexpr auto kRoundTrip = std::chrono::milliseconds(1);  // the least that a statement is given
constexpr std::string_view kChannel = "prism_changes";

}  // namespace

const Statement& position_statement() {
  static const Statement statement{
      "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END", {}};
  return statement;
}

std::uint64_t read_position(const std::optional<Result<SqlRows>>& outcome) {
  if (!outcome || !*outcome || (*outcome)->rows.empty()) return 0;
  const auto* const text = std::get_if<std::string>(&(*outcome)->rows[0].at(0));
  return text != nullptr ? parse_lsn(*text) : 0;
}

bool worth_repeating(const Error& error) noexcept {
  return error.retry == Retry::safe &&
         (error.reason == "BACKEND_UNAVAILABLE" || is_conflict(error) || is_stale_statement(error));
}

// ---- Changes

std::shared_ptr<Notifier> Changes::of(const std::string& table) {
  const std::lock_guard lock(mutex_);
  auto& notifier = tables_[folded(table)];
  if (!notifier) notifier = std::make_shared<Notifier>(loop_);
  return notifier;
}

void Changes::notify(const std::string& table) {
  CompletionBatch batch;
  const std::lock_guard lock(mutex_);
  for (const auto& [name, notifier] : tables_) {
    if (table == "*" || name == table) notifier->notify_into(batch);
  }
}

// ---- Session

Held::~Held() {
  if (!session_) return;
  asio::post(loop_->io(), [session = std::move(session_)] { session->abandon(); });
}

std::shared_ptr<OneShot<void>> Session::expect(Flight& flight, std::shared_ptr<const void> owner) {
  auto shot = std::make_shared<OneShot<void>>(&client_->loop());
  (void)shot->begin();
  running_ = true;
  flight.done = [self = shared_from_this(), shot, owner = std::move(owner)] {
    self->running_ = false;
    resume_on_loop(shot->complete());
    self->rest();
  };
  return shot;
}

Task<bool> Session::wait(Context context, std::shared_ptr<OneShot<void>> shot) {
  const Outcome outcome = co_await client_->wait(std::move(context), std::move(shot));
  if (outcome == Outcome::done) co_return true;
  abandon();
  co_return false;
}

Task<bool> Session::run(Context context, std::shared_ptr<Flight> flight, std::shared_ptr<const void> owner,
                        bool cancels) {
  cancels_ = cancels;
  auto shot = expect(*flight, std::move(owner));
  if (!connection_->send(flight)) {
    flight->lost = Failure{.sqlstate = {}, .message = "the connection was closed"};
    running_ = false;
    flight->done = nullptr;
    co_return true;
  }
  co_return co_await wait(std::move(context), std::move(shot));
}

Task<bool> Session::run_script(Context context, std::shared_ptr<Flight> flight, std::string text) {
  auto shot = expect(*flight, nullptr);
  if (!connection_->run_script(std::move(text), flight)) {
    flight->lost = Failure{.sqlstate = {}, .message = "the connection was closed"};
    running_ = false;
    flight->done = nullptr;
    co_return true;
  }
  co_return co_await wait(std::move(context), std::move(shot));
}

void Session::cancel() {
  if (!running_ || !cancels_ || std::exchange(cancelling_, true)) return;
  connection_->cancel(*client_->pool_, [self = shared_from_this()] {
    self->cancelling_ = false;
    self->rest();
  });
}

void Session::abandon() {
  over_ = true;
  cancel();
  rest();
}

// A request to cancel that is on its way would end a statement of whoever has the connection next.
void Session::rest() {
  if (!over_ || running_ || cancelling_ || given_back_) return;
  if (connection_->usable() && connection_->in_transaction()) {
    auto flight = std::make_shared<Flight>();
    flight->items.push_back(Item::control("ROLLBACK"));
    flight->items.push_back(Item::sync());
    running_ = true;
    flight->done = [self = shared_from_this()] {
      self->running_ = false;
      if (self->connection_->usable() && self->connection_->in_transaction()) self->connection_->close();
      self->rest();
    };
    if (connection_->send(flight)) return;
    running_ = false;
    connection_->close();
  }
  given_back_ = true;
  client_->give_back(connection_);
}

// ---- Client

struct Client::Unit {
  Unit(EventLoop* loop, PointRequest r) : shot(loop), request(std::move(r)), results(request.statements.size()) {}
  OneShot<Result<PointAnswer>> shot;
  PointRequest request;
  std::vector<std::optional<Result<SqlRows>>> results;
  std::uint64_t lsn = 0;
  Clock::time_point queued = Clock::now();
  Clock::time_point begun{}, executed{};
  std::size_t bytes = 0;
  std::uint32_t tries = 0;
  bool reads = false;
  bool on_board = false;  // shot.begin() was asked

  bool done() const {
    return std::ranges::all_of(results, [](const auto& r) { return r.has_value(); });
  }
  void fail_rest(const Error& error) {
    for (auto& r : results) {
      if (!r) r = std::unexpected(error);
    }
  }
  Resumption answer() {
    PointAnswer out{.results = {}, .lsn = lsn, .begun = begun, .executed = executed};
    out.results.reserve(results.size());
    for (auto& r : results) out.results.push_back(std::move(*r));
    return shot.complete(Result<PointAnswer>(std::move(out)));
  }
};

// Some units on one connection: first all in one transaction, and where that fails, each for itself.
class Client::Ride : public std::enable_shared_from_this<Ride> {
 public:
  Ride(std::shared_ptr<Client> client, std::shared_ptr<Connection> connection, std::vector<std::shared_ptr<Unit>> units)
      : client_(std::move(client)), connection_(std::move(connection)), units_(std::move(units)) {}

  void begin() {
    std::size_t atoms = 0;  // what is carried out or not for itself
    for (const auto& unit : units_) {
      unit->begun = Clock::now();
      atoms += unit->request.together ? 1 : unit->results.size();
    }
    alone_ = atoms == 1;
    launch();
  }

 private:
  // A run of items up to a sync, and whose they are.
  struct Leg {
    struct Part {
      std::size_t item = 0;
      Unit* unit = nullptr;
      std::size_t index = 0;
    };
    std::vector<Part> parts;
    std::size_t sync = 0;
  };

  void launch() {
    flight_ = std::make_shared<Flight>();
    legs_.clear();
    lsn_ = SIZE_MAX;
    auto& items = flight_->items;
    Leg leg;
    bool position = false;
    const auto end_leg = [&] {
      if (leg.parts.empty()) return;
      leg.sync = items.size();
      items.push_back(Item::sync());
      legs_.push_back(std::exchange(leg, {}));
    };
    for (const auto& unit : units_) {
      for (std::size_t i = 0; i < unit->results.size(); ++i) {
        if (unit->results[i]) continue;
        leg.parts.push_back({.item = items.size(), .unit = unit.get(), .index = i});
        items.push_back(Item::of(unit->request.statements[i]));
        position = position || unit->request.position;
        if (apart_ && !unit->request.together) end_leg();
      }
      if (apart_) end_leg();
    }
    end_leg();
    if (position) {
      lsn_ = items.size();
      items.push_back(Item::of(position_statement()));
      items.push_back(Item::sync());
    }
    flight_->done = [self = shared_from_this()] { self->back(); };
    if (connection_->send(flight_)) return;
    flight_->lost = Failure{.sqlstate = {}, .message = "the connection was closed"};
    flight_->done = nullptr;
    back();
  }

  // The error of a leg whose outcome is known; nullopt: it went well. `index`: of the part that failed.
  std::optional<Error> error_of(const Leg& leg, std::size_t& index) const {
    for (index = 0; index < leg.parts.size(); ++index) {
      const auto& outcome = flight_->items[leg.parts[index].item].outcome;
      if (outcome && !*outcome) return outcome->error();
    }
    const auto& commit = flight_->items[leg.sync].outcome;
    if (commit && !*commit) return commit->error();
    return std::nullopt;
  }
  // Has the server said that the leg is over, one way or the other?
  bool answered(const Leg& leg) const { return flight_->items[leg.sync].outcome.has_value(); }

  void back() {
    bool again = false;
    const std::uint64_t lsn = lsn_ == SIZE_MAX ? 0 : read_position(flight_->items[lsn_].outcome);
    bool stale = false;
    for (const Leg& leg : legs_) {
      if (!answered(leg)) continue;
      std::size_t at = 0;
      const auto error = error_of(leg, at);
      if (!error) {
        for (const auto& part : leg.parts) {
          part.unit->results[part.index] = std::move(*flight_->items[part.item].outcome);
          part.unit->executed = flight_->items[part.item].done;
          if (part.unit->request.position && lsn != 0) part.unit->lsn = lsn;
        }
        continue;
      }
      stale = stale || is_stale_statement(*error);
      const bool repeatable = is_stale_statement(*error) || is_conflict(*error);
      // With others in one transaction it is not known whose error it would be alone.
      if ((!apart_ && !alone_) || (repeatable && tries_ + 1 < client_->options().retry.attempts)) {
        again = true;
        continue;
      }
      Error shown = *error;
      if (at < leg.parts.size() && leg.parts[at].unit->request.together) {
        shown.metadata.insert_or_assign("statement", std::to_string(leg.parts[at].index));
      }
      for (const auto& part : leg.parts) part.unit->results[part.index] = std::unexpected(shown);
    }
    if (stale) connection_->forget_statements();
    if (flight_->lost) return lost();
    if (again) {
      if (apart_ || alone_) ++tries_;
      apart_ = true;
      return launch();
    }
    finish();
  }

  // Of what was not answered: whatever cannot have happened is sent again on another connection.
  void lost() {
    const bool nothing = flight_->ended || !flight_->sent;
    for (auto& unit : units_) {
      if (unit->done()) continue;
      if ((nothing || unit->reads) && ++unit->tries < client_->options().retry.attempts && !client_->closed()) {
        client_->queued_bytes_ += unit->bytes;
        (unit->reads ? client_->reads_ : client_->writes_).push_front(std::exchange(unit, nullptr));
      } else {
        unit->fail_rest(client_->lost(*flight_, unit->reads));
      }
    }
    finish();
  }

  void finish() {
    std::set<std::string> changed;
    {
      CompletionBatch batch;
      for (const auto& unit : units_) {
        if (!unit) continue;
        if (!unit->reads && !unit->request.quiet) {
          for (std::size_t i = 0; i < unit->results.size(); ++i) {
            const auto& r = *unit->results[i];
            if (!r && r.error().retry != Retry::unknown_outcome) continue;
            if (auto table = changed_table(unit->request.statements[i].text); !table.empty()) changed.insert(table);
          }
        }
        batch.add(unit->answer());
      }
    }
    if (!changed.empty()) client_->changed(changed);
    client_->landed(connection_);
  }

  std::shared_ptr<Client> client_;
  std::shared_ptr<Connection> connection_;
  std::vector<std::shared_ptr<Unit>> units_;
  std::shared_ptr<Flight> flight_;
  std::vector<Leg> legs_;
  std::size_t lsn_ = SIZE_MAX;
  bool apart_ = false;
  bool alone_ = false;
  std::uint32_t tries_ = 0;
};

std::shared_ptr<Client> Client::make(Runtime& runtime, std::string backend, Options options) {
  return std::shared_ptr<Client>(new Client(runtime, std::move(backend), std::move(options)));
}

Client::Client(Runtime& runtime, std::string backend, Options options)
    : loop_(runtime.next_loop()),
      options_(std::move(options)),
      peer_{.backend = std::move(backend), .system = "PostgreSQL", .address = options_.address()},
      breaker_(options_.breaker),
      pool_(std::make_unique<OffloadPool>("postgres", kConnectThreads)),
      changes_(std::make_shared<Changes>(loop_)) {}

Client::~Client() = default;

Id128 Client::incarnation() const {
  const std::lock_guard lock(mutex_);
  return incarnation_;
}

Position Client::position(std::uint64_t lsn) const {
  if (lsn == 0) return {};
  return Position(PositionPart{.source = incarnation(), .partition = 0, .offset = lsn});
}

Error Client::closing() const { return client::unavailable(peer_, "it is being closed"); }

Error Client::lost(const Flight& flight, bool reads) const {
  const bool nothing = reads || flight.ended || !flight.sent;
  return lost_error(*flight.lost, peer_, nothing ? Retry::safe : Retry::unknown_outcome);
}

std::string Client::time_limit(const Context& context) const {
  if (context.deadline() == Clock::time_point::max()) return {};
  const auto left = std::max<Clock::duration>(context.deadline() - Clock::now(), kRoundTrip);
  if (left >= options_.timeouts.operation) return {};
  return "SET LOCAL statement_timeout = " + std::to_string(std::chrono::ceil<std::chrono::milliseconds>(left).count());
}

template <class T>
Task<Outcome> Client::wait(Context context, std::shared_ptr<OneShot<T>> shot) {
  std::optional<asio::steady_timer> timer;
  if (context.deadline() != Clock::time_point::max()) {
    timer.emplace(loop_.io(), context.deadline());
    timer->async_wait([shot](const asio::error_code& error) {
      if (!error) resume_on_loop(shot->release());
    });
  }
  co_return co_await shot->wait(context.stop());
}

Task<Result<PointAnswer>> Client::point(Context context, PointRequest request) {
  if (context.stopped()) co_return std::unexpected(context.over(false));
  auto unit = std::make_shared<Unit>(&loop_, std::move(request));
  unit->reads = true;
  for (std::size_t i = 0; i < unit->results.size(); ++i) {
    const Statement& statement = unit->request.statements[i];
    unit->bytes += memory_of(statement);
    unit->reads = unit->reads && surely_reads(statement.text);
    auto good = check_statement(statement);
    if (good) continue;
    if (unit->request.together) co_return fail(std::move(good).error().with("statement", std::to_string(i)));
    unit->results[i] = std::unexpected(std::move(good).error());
  }
  if (unit->done()) {
    PointAnswer out;
    for (auto& r : unit->results) out.results.push_back(std::move(*r));
    co_return out;
  }
  co_await resume_on(loop_);
  if (closed()) co_return std::unexpected(closing());
  if (queued_bytes_ + unit->bytes > kMostQueuedBytes && queued_bytes_ > 0)
    co_return std::unexpected(
        client::overloaded(peer_, "too many bytes wait to be written", std::chrono::milliseconds(100)));
  queued_bytes_ += unit->bytes;
  (unit->reads ? reads_ : writes_).push_back(unit);
  pump();
  const Outcome outcome = co_await wait(context, std::shared_ptr<OneShot<Result<PointAnswer>>>(unit, &unit->shot));
  if (outcome != Outcome::done) co_return std::unexpected(context.over(outcome == Outcome::abandoned && !unit->reads));
  auto answer = unit->shot.take();
  if (!answer) co_return answer;
  bool all_failed = true;
  for (const auto& r : answer->results) {
    if (!r && unit->request.together) co_return std::unexpected(r.error());
    all_failed = all_failed && !r;
  }
  // Nothing of it has happened: the whole call may be repeated.
  if (all_failed && worth_repeating(answer->results.front().error()))
    co_return std::unexpected(std::move(answer->results.front()).error());
  co_return answer;
}

void Client::take_units(std::deque<std::shared_ptr<Unit>>& queue, std::vector<std::shared_ptr<Unit>>& units) {
  std::size_t statements = 0;
  std::size_t bytes = 0;
  while (!queue.empty()) {
    auto& unit = queue.front();
    if (!units.empty() && (statements + unit->results.size() > kFlightStatements || bytes + unit->bytes > kFlightBytes))
      return;
    statements += unit->results.size();
    bytes += unit->bytes;
    queued_bytes_ -= unit->bytes;
    if (std::exchange(unit->on_board, true) || unit->shot.begin()) units.push_back(std::move(unit));
    queue.pop_front();
  }
}

void Client::pump() {
  while (!reads_.empty() || !writes_.empty()) {
    if (closed()) return fail_queued(closing());
    if (free_.empty()) {
      if (point_.size() + point_connecting_ < options_.point_connections &&
          (point_.empty() || Clock::now() >= no_growth_before_)) {
        ++point_connecting_;
        scope_.spawn(add_point_connection(shared_from_this()));
      }
      break;
    }
    const bool reading = writes_.empty() || (!reads_.empty() && reads_.front()->queued <= writes_.front()->queued);
    std::vector<std::shared_ptr<Unit>> units;
    take_units(reading ? reads_ : writes_, units);
    if (units.empty()) continue;
    std::ranges::sort(units, {}, [](const auto& unit) { return std::tie(unit->request.order, unit->queued); });
    const auto connection = free_.back();
    free_.pop_back();
    std::make_shared<Ride>(shared_from_this(), connection, std::move(units))->begin();
  }
  note();
}

void Client::landed(const std::shared_ptr<Connection>& connection) {
  // A function that was called may have begun a transaction; nobody would end it.
  if (connection->usable() && connection->in_transaction()) connection->close();
  if (connection->usable()) free_.push_back(connection);
  pump();
}

void Client::fail_queued(const Error& error) {
  CompletionBatch batch;
  for (auto* queue : {&reads_, &writes_}) {
    for (auto& unit : std::exchange(*queue, {})) {
      queued_bytes_ -= unit->bytes;
      if (!std::exchange(unit->on_board, true) && !unit->shot.begin()) continue;
      unit->fail_rest(error);
      batch.add(unit->answer());
    }
  }
}

Task<void> Client::add_point_connection(std::shared_ptr<Client> /*self*/) {
  auto made = co_await connect();
  --point_connecting_;
  if (made) {
    const auto& connection = point_.emplace_back(*made);
    free_.push_back(connection);
    // A reference of its own would keep it for ever.
    connection->on_lost = [this, raw = connection.get()] {
      std::erase_if(point_, [raw](const auto& c) { return c.get() == raw; });
      std::erase_if(free_, [raw](const auto& c) { return c.get() == raw; });
      note();
    };
    connection->start();
    pump();
  } else {
    no_growth_before_ = Clock::now() + kGrowthPause;
    if (point_.empty() && point_connecting_ == 0) fail_queued(made.error());
  }
  note();
}

Task<Result<std::shared_ptr<Connection>>> Client::connect() {
  PRISM_CO_CHECK(breaker_.admit());
  const std::stop_token stop = scope_.stop_token();
  auto handle = co_await offload(*pool_, loop_, [this, &stop] { return Connection::open(options_, peer_, stop); });
  if (closed()) co_return std::unexpected(closing());
  const bool was_away = breaker_.last_error().has_value();
  breaker_.done(handle);
  if (!handle) {
    if (!was_away)
      log::warn("postgres does not admit connections",
                {{"backend", peer_.backend}, {"reason", handle.error().reason}, {"error", handle.error().message}});
    co_return std::unexpected(std::move(handle).error());
  }
  if (was_away) log::info("postgres admits connections again", {{"backend", peer_.backend}});
  auto connection =
      std::make_shared<Connection>(loop_, std::move(*handle), peer_, options_.timeouts.operation + kLateAnswer);
  {
    const std::lock_guard lock(mutex_);
    incarnation_ = connection->incarnation();
  }
  co_return connection;
}

// ---- exclusive connections

Task<Result<Held>> Client::acquire(Context context) {
  if (context.stopped()) co_return std::unexpected(context.over(false));
  co_await resume_on(loop_);
  if (closed()) co_return std::unexpected(closing());
  if (waiting_.size() > options_.pool.queue)
    co_return std::unexpected(
        client::overloaded(peer_, "too many operations wait for one", std::chrono::milliseconds(100)));
  auto shot = std::make_shared<OneShot<Result<Held>>>(&loop_);
  waiting_.push_back(shot);
  if (!idle_.empty()) {
    auto connection = std::move(idle_.back());
    idle_.pop_back();
    hand_over(std::move(connection));
  } else {
    grow();
  }
  note();
  const Outcome outcome = co_await wait(context.with_timeout(options_.pool.wait), shot);
  if (outcome == Outcome::done) co_return shot->take();
  if (outcome == Outcome::cancelled) std::erase(waiting_, shot);
  note();
  if (context.stopped()) co_return std::unexpected(context.over(false));
  co_return std::unexpected(client::overloaded(peer_, "all connections of `pool` are in use", options_.pool.wait));
}

void Client::grow() {
  if (exclusive_connecting_ >= waiting_.size()) return;
  if (idle_.size() + in_use_.size() + exclusive_connecting_ >= options_.pool.connections) return;
  ++exclusive_connecting_;
  scope_.spawn(add_exclusive_connection(shared_from_this()));
}

Task<void> Client::add_exclusive_connection(std::shared_ptr<Client> /*self*/) {
  auto made = co_await connect();
  --exclusive_connecting_;
  if (made) {
    auto& connection = *made;
    connection->on_lost = [this, raw = connection.get()] {
      std::erase_if(idle_, [raw](const auto& c) { return c.get() == raw; });
      note();
    };
    connection->start();
    hand_over(std::move(connection));
  } else if (in_use_.empty() && exclusive_connecting_ == 0) {
    CompletionBatch batch;
    for (auto& shot : std::exchange(waiting_, {})) {
      if (shot->begin()) batch.add(shot->complete(Result<Held>(std::unexpected(made.error()))));
    }
  }
  note();
}

void Client::hand_over(std::shared_ptr<Connection> connection) {
  while (!waiting_.empty()) {
    const auto shot = std::move(waiting_.front());
    waiting_.pop_front();
    if (!shot->begin()) continue;
    in_use_.insert(connection);
    Held held(loop_, std::make_shared<Session>(shared_from_this(), std::move(connection)));
    return resume_on_loop(shot->complete(Result<Held>(std::move(held))));
  }
  if (closed()) return connection->close();
  idle_.push_back(std::move(connection));
}

void Client::give_back(std::shared_ptr<Connection> connection) {
  in_use_.erase(connection);
  if (closed()) {
    connection->close();
  } else if (connection->usable()) {
    hand_over(std::move(connection));
  } else {
    grow();
  }
  note();
}

Task<Result<SqlRows>> Client::query(Context context, Statement statement, std::size_t max_rows) {
  PRISM_CO_CHECK(check_statement(statement));
  PRISM_CO_TRY(auto held, co_await acquire(context));
  const auto owned = std::make_shared<const Statement>(std::move(statement));
  const auto flight = std::make_shared<Flight>();
  flight->items.push_back(Item::control("BEGIN READ ONLY"));
  if (auto limit = time_limit(context); !limit.empty()) flight->items.push_back(Item::control(std::move(limit)));
  const std::size_t at = flight->items.size();
  flight->items.push_back(Item::of(*owned, max_rows));
  flight->items.push_back(Item::control("COMMIT"));
  flight->items.push_back(Item::sync());
  flight->excess = [weak = std::weak_ptr(held.session())] {
    if (const auto session = weak.lock()) session->abandon();
  };
  const bool answered = co_await held->run(context, flight, owned);
  if (!answered) co_return std::unexpected(context.over(false));
  Item& item = flight->items[at];
  if (item.dropped > 0 && item.partial.rows.size() == max_rows) co_return std::move(item.partial);
  if (flight->lost) co_return std::unexpected(lost(*flight, true));
  for (auto& i : flight->items) {
    if (!i.outcome || *i.outcome) continue;
    if (is_stale_statement(i.outcome->error())) {
      held->connection().forget_statements();
      i.outcome->error().retry = Retry::safe;
    }
    if (i.outcome->error().reason == "SQL_TOO_SLOW" && context.stopped())
      co_return std::unexpected(context.over(false));
    co_return std::unexpected(std::move(i.outcome->error()));
  }
  co_return std::move(*item.outcome);
}

Task<Result<void>> Client::make_tables(Context context, std::string table, std::vector<std::string> ddl) {
  co_await resume_on(loop_);
  while (!made_.contains(table)) {
    if (const auto it = making_.find(table); it != making_.end()) {  // one at a time is enough
      const auto made = it->second;
      co_await made->wait(context, made->version(), kLongDdl);
      if (context.stopped()) co_return std::unexpected(context.over(false));
      continue;
    }
    const auto made = making_.emplace(table, std::make_shared<Notifier>(loop_)).first->second;
    auto done = co_await make_once(context, table, std::move(ddl));
    co_await resume_on(loop_);
    if (done) made_.insert(table);
    making_.erase(table);
    made->notify();
    co_return done;
  }
  co_return {};
}

Task<Result<void>> Client::make_once(Context context, std::string table, std::vector<std::string> ddl) {
  const Statement exists{"SELECT to_regclass(quote_ident($1)) IS NOT NULL", {table}};
  PRISM_CO_TRY(auto present, co_await query(context, exists, SIZE_MAX));
  if (std::get<bool>(present.rows.at(0).at(0))) co_return {};
  const auto flight = std::make_shared<Flight>();
  std::string text;
  for (const auto& statement : ddl) text += statement + ";";
  {
    PRISM_CO_TRY(auto held, co_await acquire(context));
    const bool answered = co_await held->run_script(context, flight, std::move(text));
    if (!answered) co_return std::unexpected(context.over(true));
  }
  if (flight->lost) co_return std::unexpected(lost(*flight, false));
  if (const auto& outcome = flight->items.at(0).outcome; outcome && !*outcome) {
    // Another process may have made it at the same moment.
    PRISM_CO_TRY(present, co_await query(context, exists, SIZE_MAX));
    if (!std::get<bool>(present.rows.at(0).at(0))) co_return std::unexpected(outcome->error());
  }
  co_return {};
}

Task<Result<PointAnswer>> Client::on_table(Context context, std::string table, std::vector<std::string> ddl,
                                           std::shared_ptr<const PointRequest> request) {
  PRISM_CO_CHECK(co_await make_tables(context, table, std::move(ddl)));
  auto answer = co_await point(std::move(context), *request);
  const auto missing = [](const auto& r) { return !r && is_missing_table(r.error()); };
  if (missing(answer) || (answer && std::ranges::any_of(answer->results, missing))) {
    co_await resume_on(loop_);
    made_.erase(table);  // somebody dropped it: the next call makes it anew
  }
  co_return answer;
}

// ---- changes

void Client::changed(const std::set<std::string>& tables) {
  for (const auto& table : tables) changes_->notify(table);
  untold_.insert(tables.begin(), tables.end());
  start_listening();
  tell_others();
}

Task<void> Client::wait_for_change(Context context, std::string table, Clock::duration at_most) {
  const auto notifier = changes_->of(table);
  const std::uint64_t seen = notifier->version();
  if (closed()) co_return;
  start_listening();
  co_await notifier->wait(std::move(context), seen, at_most);
}

void Client::start_listening() {
  if (closed() || listening_asked_.exchange(true)) return;
  scope_.spawn(listen(shared_from_this()));
}

// A commit with a notification is serialized with all others of its kind by the server: they are told by transactions
// of their own, which wait for no disk, and not for each change.
void Client::tell_others() {
  if (!listener_ || telling_ || untold_.empty()) return;
  telling_ = true;
  auto timer = std::make_shared<asio::steady_timer>(loop_.io(), kTellAfter);
  timer->async_wait([weak = weak_from_this(), timer](const asio::error_code& error) {
    const auto self = weak.lock();
    if (error || !self) return;
    self->telling_ = false;
    if (!self->listener_ || self->listener_->busy()) return;  // when it is free again
    const auto statements = std::make_shared<std::vector<Statement>>();
    for (const auto& table : std::exchange(self->untold_, {}))
      statements->push_back({"SELECT pg_notify($1, $2)", {std::string(kChannel), table}});
    const auto flight = std::make_shared<Flight>();
    for (const auto& statement : *statements) flight->items.push_back(Item::of(statement));
    flight->items.push_back(Item::sync());
    flight->done = [statements, weak] {
      if (const auto client = weak.lock()) client->tell_others();
    };
    (void)self->listener_->send(flight);
  });
}

Task<void> Client::listen(std::shared_ptr<Client> /*self*/) {
  const Context context = Context::background(scope_.stop_token());
  client::Backoff backoff(options_.breaker.pause, options_.breaker.max_pause);
  while (!context.stopped()) {
    auto made = co_await connect();
    if (!made) {
      co_await sleep_for(loop_, context, std::max<Clock::duration>(backoff.next(), breaker_.until_next_try()));
      continue;
    }
    backoff.reset();
    const auto& connection = *made;
    const auto lost = std::make_shared<OneShot<void>>(&loop_);
    connection->on_lost = [lost] { resume_on_loop(lost->complete()); };
    connection->on_notification = [changes = changes_](const std::string& payload, bool own) {
      if (!own) changes->notify(payload);
    };
    connection->start();
    const auto flight = std::make_shared<Flight>();
    flight->items.push_back(Item::control("SET synchronous_commit = off"));
    flight->items.push_back(Item::control("LISTEN " + std::string(kChannel)));
    flight->items.push_back(Item::sync());
    flight->done = [this, flight, connection] {
      const auto& listening = flight->items[1].outcome;
      flight->done = nullptr;
      if (!listening || !*listening) return;
      listener_ = connection;
      changes_->notify("*");  // what was changed before is not heard of
      tell_others();
      note();
    };
    (void)connection->send(flight);
    co_await lost->wait(context.stop());
    co_await resume_on(loop_);
    listener_ = nullptr;
    connection->close();
    note();
    co_await sleep_for(loop_, context, backoff.next());
  }
}

// ---- the whole

Task<Result<void>> Client::check(Context context) {
  PointRequest request;
  request.statements.push_back({"SELECT 1", {}});
  PRISM_CO_TRY(auto answer, co_await point(std::move(context), std::move(request)));
  if (!answer.results.at(0)) co_return std::unexpected(std::move(answer.results[0]).error());
  co_return {};
}

void Client::note() {
  const std::lock_guard lock(mutex_);
  use_ = {.idle = free_.size() + idle_.size(),
          .in_use = point_.size() - free_.size() + in_use_.size() + (listener_ ? 1 : 0),
          .connecting = point_connecting_ + exclusive_connecting_,
          .waiting = waiting_.size() + reads_.size() + writes_.size()};
}

ConnectionUse Client::use() const {
  const std::lock_guard lock(mutex_);
  return use_;
}

Task<void> Client::close(Context context) {
  co_await resume_on(loop_);
  const auto until = std::min(context.deadline(), Clock::now() + kCloseGrace);
  while (Clock::now() < until &&
         (free_.size() < point_.size() || !reads_.empty() || !writes_.empty() || !in_use_.empty()))
    co_await sleep_for(loop_, Context(), std::chrono::milliseconds(5));
  closed_ = true;
  scope_.request_stop();
  fail_queued(closing());
  for (const auto& shot : std::exchange(waiting_, {})) {
    if (shot->begin()) resume_on_loop(shot->complete(Result<Held>(std::unexpected(closing()))));
  }
  for (const auto& list : {point_, idle_}) {
    for (const auto& connection : list) connection->close();
  }
  for (const auto& connection : std::exchange(in_use_, {})) connection->close();
  if (listener_) listener_->close();
  co_await scope_.join();
  co_await resume_on(loop_);
  idle_.clear();
  note();
}

}  // namespace prism::postgres

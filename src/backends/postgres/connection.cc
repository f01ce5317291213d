#include "backends/postgres/connection.h"

#include <netdb.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "backends/postgres/libpq.h"
#include "backends/postgres/values.h"

namespace prism::postgres {

namespace {

constexpr std::size_t kMostPrepared = 256;      // a connection; the server keeps a plan of each
constexpr std::size_t kFewExcessRows = 10'000;  // not worth a cancellation
constexpr int kPollMs = 100;                    // how soon a stop is seen while connecting

struct Cleared {
  void operator()(PGresult* r) const { pq().PQclear(r); }
};
using Answer = std::unique_ptr<PGresult, Cleared>;

std::string field(const PGresult* result, int code) {
  const char* const text = pq().PQresultErrorField(result, code);
  return text != nullptr ? text : "";
}

Failure failure_of(const PGresult* result) {
  Failure out{.sqlstate = field(result, PG_DIAG_SQLSTATE),
              .message = field(result, PG_DIAG_MESSAGE_PRIMARY),
              .constraint = field(result, PG_DIAG_CONSTRAINT_NAME),
              .table = field(result, PG_DIAG_TABLE_NAME),
              .column = field(result, PG_DIAG_COLUMN_NAME)};
  const std::string severity = field(result, PG_DIAG_SEVERITY_NONLOCALIZED);
  out.fatal = severity == "FATAL" || severity == "PANIC";
  if (out.message.empty()) {  // the library's own
    out.message = pq().PQresultErrorMessage(result);
    std::ranges::replace(out.message, '\n', ' ');
    while (out.message.ends_with(' ')) out.message.pop_back();
  }
  return out;
}

void add_rows(const PGresult* result, std::size_t max_rows, SqlRows& rows, std::size_t& dropped) {
  const int columns = pq().PQnfields(result);
  if (rows.columns.empty()) {
    rows.columns.reserve(static_cast<std::size_t>(columns));
    for (int c = 0; c < columns; ++c) rows.columns.emplace_back(pq().PQfname(result, c));
  }
  const int n = pq().PQntuples(result);
  for (int r = 0; r < n; ++r) {
    if (rows.rows.size() >= max_rows) {
      dropped += static_cast<std::size_t>(n - r);
      return;
    }
    auto& row = rows.rows.emplace_back();
    row.reserve(static_cast<std::size_t>(columns));
    for (int c = 0; c < columns; ++c) {
      if (pq().PQgetisnull(result, r, c) != 0) {
        row.emplace_back(SqlNull());
      } else {
        row.push_back(decode(pq().PQftype(result, c), {pq().PQgetvalue(result, r, c),
                                                       static_cast<std::size_t>(pq().PQgetlength(result, r, c))}));
      }
    }
  }
}

// A SELECT says how many rows it gave: they are not affected.
std::uint64_t affected(PGresult* result) {
  if (std::string_view(pq().PQcmdStatus(result)).starts_with("SELECT")) return 0;
  const std::string_view text = pq().PQcmdTuples(result);
  std::uint64_t n = 0;
  std::from_chars(text.data(), text.data() + text.size(), n);
  return n;
}

// Where the system keeps the authorities that it trusts.
std::string system_authorities() {
  for (const char* file : {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                           "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"}) {
    if (std::error_code ignored; std::filesystem::exists(file, ignored)) return file;
  }
  return "/etc/ssl/certs/ca-certificates.crt";
}

// The first address of a host. Blocks.
std::optional<std::string> address_of(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return std::nullopt;
  std::array<char, NI_MAXHOST> text{};
  const int rc = getnameinfo(found->ai_addr, found->ai_addrlen, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST);
  freeaddrinfo(found);
  if (rc != 0) return std::nullopt;
  return std::string(text.data());
}

using Parameter = std::pair<const char*, std::string>;

std::vector<Parameter> connection_parameters(const Options& options) {
  std::vector<Parameter> out;
  const auto timeout = std::chrono::ceil<std::chrono::milliseconds>(options.timeouts.operation);
  out.emplace_back("host", options.host.value_or("localhost"));
  out.emplace_back("port", std::to_string(options.port.value_or(5432)));
  if (options.database) out.emplace_back("dbname", *options.database);
  if (options.login_user) out.emplace_back("user", *options.login_user);
  if (options.login_password) out.emplace_back("password", options.login_password->reveal());
  out.emplace_back("application_name", options.application_name);
  out.emplace_back("client_encoding", "UTF8");
  out.emplace_back("gssencmode", "disable");
  out.emplace_back("keepalives_idle", "30");
  out.emplace_back("keepalives_interval", "10");
  out.emplace_back("keepalives_count", "3");
  out.emplace_back("tcp_user_timeout", std::to_string(timeout.count()));
  if (!client::uses_tls(options.tls)) {
    out.emplace_back("sslmode", "disable");
    return out;
  }
  out.emplace_back("sslmode", options.tls->verify ? "verify-full" : "require");
  if (options.tls->verify) out.emplace_back("sslrootcert", options.tls->ca_file.value_or(system_authorities()));
  if (options.tls->cert_file) out.emplace_back("sslcert", *options.tls->cert_file);
  if (options.tls->key_file) out.emplace_back("sslkey", *options.tls->key_file);
  if (options.tls->server_name) {  // `host` is what the certificate must be for, `hostaddr` who is connected to
    if (auto address = address_of(options.host.value_or("localhost")))
      out.emplace_back("hostaddr", std::move(*address));
    out.front().second = *options.tls->server_name;
  }
  return out;
}

// What makes the texts of values and the time that statements take the same whatever the server's settings are.
std::string session_settings(const Options& options) {
  const auto ms = [](std::chrono::milliseconds d) { return std::to_string(d.count()); };
  std::string out =
      "SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; "
      "SET bytea_output = 'hex'; SET standard_conforming_strings = on; SET default_transaction_read_only = off; "
      "SET statement_timeout = " +
      ms(options.timeouts.operation) + "; SET lock_timeout = " + ms(options.lock_timeout) + ";";
  // What is answered has been written to the disk; "local" and the stricter ones are the operator's choice.
  out += " SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';";
  if (options.schema) out += " SET search_path = " + SqlText::quote(*options.schema) + ";";
  return out;
}

}  // namespace

struct Connection::Handle {
  PGconn* connection = nullptr;
  Id128 incarnation{};

  Handle() = default;
  ~Handle() { pq().PQfinish(connection); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
};

struct Socket {
  asio::posix::stream_descriptor descriptor;
  asio::steady_timer watch;
};

namespace {

// Waits for the socket; false: the time is over, or the stop was requested.
bool wait_for(PGconn* c, short events, Clock::time_point deadline, const std::stop_token& stop) {
  while (!stop.stop_requested() && Clock::now() < deadline) {
    pollfd p{.fd = pq().PQsocket(c), .events = events, .revents = 0};
    if (::poll(&p, 1, kPollMs) > 0) return true;
  }
  return false;
}

// Runs a text while connecting. Null: no answer in time.
Answer run(PGconn* c, const std::string& text, Clock::time_point deadline, const std::stop_token& stop) {
  if (pq().PQsendQuery(c, text.c_str()) == 0) return nullptr;
  Answer last;
  while (true) {
    while (pq().PQisBusy(c) != 0) {
      if (!wait_for(c, POLLIN, deadline, stop) || pq().PQconsumeInput(c) == 0) return nullptr;
    }
    Answer next(pq().PQgetResult(c));
    if (!next) return last;
    if (!last || pq().PQresultStatus(last.get()) != PGRES_FATAL_ERROR) last = std::move(next);
  }
}

// Positions are of one cluster and database: its own number, made by initdb, and that of the database.
Id128 read_incarnation(PGconn* c, const client::Peer& peer, Clock::time_point deadline, const std::stop_token& stop) {
  Id128 out{};
  const auto put = [&out](std::size_t at, std::uint64_t value, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) out.at(at + i) = static_cast<std::byte>(value >> (8 * (bytes - 1 - i)));
  };
  const auto number = [](const char* text) {
    std::uint64_t n = 0;
    std::from_chars(text, text + std::strlen(text), n);
    return n;
  };
  const Answer oid = run(c, "SELECT oid FROM pg_database WHERE datname = current_database()", deadline, stop);
  if (oid && pq().PQntuples(oid.get()) == 1) put(8, number(pq().PQgetvalue(oid.get(), 0, 0)), 4);
  put(12, 0x50470001, 4);
  const Answer system = run(c, "SELECT system_identifier FROM pg_control_system()", deadline, stop);
  if (system && pq().PQntuples(system.get()) == 1) {
    put(0, number(pq().PQgetvalue(system.get(), 0, 0)), 8);
  } else {  // not allowed to know: the address stands for it
    put(0, std::hash<std::string>()(peer.address), 8);
  }
  return out;
}

}  // namespace

Result<std::shared_ptr<Connection::Handle>> Connection::open(const Options& options, const client::Peer& peer,
                                                             std::stop_token stop) {
  const auto deadline = Clock::now() + options.timeouts.connect;
  const auto late = [&] {
    return fail(client::unavailable(
        peer, stop.stop_requested() ? "connecting was given up" : "no connection within `timeouts.connect`"));
  };
  const auto parameters = connection_parameters(options);
  std::vector<const char*> keys;
  std::vector<const char*> values;
  for (const auto& [key, value] : parameters) {
    keys.push_back(key);
    values.push_back(value.c_str());
  }
  keys.push_back(nullptr);
  values.push_back(nullptr);
  auto handle = std::make_shared<Handle>();
  PGconn* const c = handle->connection = pq().PQconnectStartParams(keys.data(), values.data(), 0);
  if (c == nullptr)
    return fail(Code::resource_exhausted, "OUT_OF_MEMORY", "no memory for a connection", {}, Retry::safe);
  pq().PQsetErrorVerbosity(c, PQERRORS_VERBOSE);  // it is how the library tells the SQLSTATE
  pq().PQsetNoticeReceiver(c, [](void*, const PGresult*) {}, nullptr);
  auto state = pq().PQstatus(c) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
  while (state != PGRES_POLLING_OK) {
    if (state == PGRES_POLLING_FAILED) return fail(connect_error(pq().PQerrorMessage(c), peer));
    if (!wait_for(c, state == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline, stop)) return late();
    state = pq().PQconnectPoll(c);
  }
  const Answer set = run(c, session_settings(options), deadline, stop);
  if (!set) return pq().PQstatus(c) == CONNECTION_BAD ? fail(connect_error(pq().PQerrorMessage(c), peer)) : late();
  if (pq().PQresultStatus(set.get()) == PGRES_FATAL_ERROR) return fail(to_error(failure_of(set.get()), peer));
  handle->incarnation = read_incarnation(c, peer, deadline, stop);
  if (pq().PQstatus(c) == CONNECTION_BAD) return fail(connect_error(pq().PQerrorMessage(c), peer));
  if (pq().PQtransactionStatus(c) != PQTRANS_IDLE) return late();
  if (pq().PQsetnonblocking(c, 1) != 0 || pq().PQenterPipelineMode(c) == 0)
    return fail(client::protocol_error(peer, pq().PQerrorMessage(c), Retry::safe));
  return handle;
}

Connection::Connection(EventLoop& loop, std::shared_ptr<Handle> handle, client::Peer peer, Clock::duration patience)
    : loop_(loop),
      handle_(std::move(handle)),
      connection_(handle_->connection),
      peer_(std::move(peer)),
      socket_(std::make_unique<Socket>(asio::posix::stream_descriptor(loop.io(), pq().PQsocket(connection_)),
                                       asio::steady_timer(loop.io()))),
      patience_(patience) {}

Connection::~Connection() {
  if (!closed_) socket_->descriptor.release();
}

void Connection::start() { wait_readable(); }

const Id128& Connection::incarnation() const noexcept { return handle_->incarnation; }

bool Connection::in_transaction() const { return pq().PQtransactionStatus(connection_) != PQTRANS_IDLE; }

void Connection::forget_statements() {
  prepared_.clear();
  by_use_.clear();
  deallocate_all_ = true;
}

void Connection::wait_readable() {
  socket_->descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                 [self = shared_from_this()](const asio::error_code& error) {
                                   if (self->closed_ || error == asio::error::operation_aborted) return;
                                   self->on_readable();
                                 });
}

void Connection::wait_writable() {
  if (std::exchange(writing_, true)) return;
  socket_->descriptor.async_wait(asio::posix::stream_descriptor::wait_write,
                                 [self = shared_from_this()](const asio::error_code& error) {
                                   self->writing_ = false;
                                   if (self->closed_ || error == asio::error::operation_aborted) return;
                                   self->flush();
                                   self->tell();
                                 });
}

// A peer that is gone without a word, or somebody in between who swallows everything.
void Connection::watch() {
  if (std::exchange(watching_, true)) return;
  socket_->watch.expires_at(heard_ + patience_);
  socket_->watch.async_wait([weak = weak_from_this()](const asio::error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->closed_) return;
    self->watching_ = false;
    if (!self->busy()) return;
    const bool script = self->expected_.front().kind == Expected::Kind::script;  // takes as long as it takes
    if (script) self->heard_ = Clock::now();
    if (Clock::now() < self->heard_ + self->patience_) return self->watch();
    self->lose({.message = "no answer within `timeouts.operation`"});
    self->tell();
  });
}

void Connection::on_readable() {
  heard_ = Clock::now();
  const bool alive = pq().PQconsumeInput(connection_) != 0;
  process();
  if (!closed_) {
    while (PGnotify* const n = pq().PQnotifies(connection_)) {
      const std::string payload = n->extra;
      const bool own = n->be_pid == pq().PQbackendPID(connection_);
      pq().PQfreemem(n);
      if (on_notification) on_notification(payload, own);
    }
    if (!alive || pq().PQstatus(connection_) == CONNECTION_BAD) {
      lose({.message = pq().PQerrorMessage(connection_)});
    } else {
      flush();
    }
  }
  if (!closed_) wait_readable();
  tell();
}

void Connection::flush() {
  switch (pq().PQflush(connection_)) {
    case 0:
      return;
    case 1:
      return wait_writable();
    default:
      // What the server has sent before it went away says more than the broken pipe.
      pq().PQconsumeInput(connection_);
      process();
      lose({.message = pq().PQerrorMessage(connection_)});
  }
}

void Connection::process() {
  while (!expected_.empty() && !closed_ && pq().PQisBusy(connection_) == 0) {
    const Answer answer(pq().PQgetResult(connection_));
    Expected& expected = expected_.front();
    const bool sync =
        expected.kind == Expected::Kind::item && expected.flight->items[expected.index].kind == Item::Kind::sync;
    if (answer) {
      const auto status = pq().PQresultStatus(answer.get());
      if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
        return lose({.sqlstate = "0A000", .message = "COPY is not possible here"});
      }
      take(expected, answer.get());
      if (status != PGRES_PIPELINE_SYNC) continue;
    } else if (sync || (expected.kind == Expected::Kind::aside && expected.index == 1)) {
      // Behind an error of the commit; the sync's own answer is still to come.
      if (pq().PQstatus(connection_) == CONNECTION_BAD) return;
      continue;
    }
    const Expected done = std::move(expected);
    expected_.pop_front();
    ended(done);
    single_rows();
  }
}

void Connection::take(Expected& expected, pg_result* result) {
  const auto status = pq().PQresultStatus(result);
  std::optional<Failure> failure;
  if (status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE || status == PGRES_NONFATAL_ERROR) {
    failure = failure_of(result);
    if (failure->fatal) {
      const bool at_sync =
          expected.kind == Expected::Kind::item && expected.flight->items[expected.index].kind == Item::Kind::sync;
      fatal_before_sync_ = !at_sync && expected.kind != Expected::Kind::script;
      fatal_ = failure;
    }
  }
  if (expected.kind == Expected::Kind::aside) return;
  Item& item = expected.flight->items[expected.index];
  // The library's own error says that the connection broke; lose() tells that better.
  if (failure && (failure->fatal || failure->sqlstate.empty())) return;
  if (expected.kind == Expected::Kind::prepare) {
    const auto it = prepared_.find(expected.key);
    if (it != prepared_.end() && it->second.name == expected.name) {
      if (status == PGRES_COMMAND_OK) {
        it->second.confirmed = true;
      } else {
        by_use_.erase(it->second.used);
        prepared_.erase(it);
      }
    }
    if (failure) item.outcome = std::unexpected(to_error(*failure, peer_));
    return;
  }
  if (failure) {
    if (!item.outcome || item.outcome->has_value()) item.outcome = std::unexpected(to_error(*failure, peer_));
    return;
  }
  switch (status) {
    case PGRES_TUPLES_OK:
    case PGRES_SINGLE_TUPLE: {
      const std::size_t had = item.dropped;
      add_rows(result, item.max_rows, item.partial, item.dropped);
      if (had < kFewExcessRows && item.dropped >= kFewExcessRows && expected.flight->excess) expected.flight->excess();
      if (status == PGRES_SINGLE_TUPLE) return;
      item.partial.affected = affected(result);
      if (expected.kind != Expected::Kind::script) item.outcome = std::move(item.partial);
      return;
    }
    case PGRES_COMMAND_OK:
      item.tag = pq().PQcmdStatus(result);
      if (expected.kind == Expected::Kind::script && item.outcome) return;
      item.outcome = SqlRows{.columns = {}, .rows = {}, .affected = affected(result)};
      return;
    case PGRES_EMPTY_QUERY:
      item.outcome = fail(Code::invalid_argument, "SQL_ERROR", "no statement");
      return;
    case PGRES_PIPELINE_SYNC:
      if (!item.outcome) item.outcome = SqlRows();
      return;
    default:  // PGRES_PIPELINE_ABORTED: skipped
      return;
  }
}

void Connection::ended(const Expected& expected) {
  if (expected.kind == Expected::Kind::script) {
    if (pq().PQenterPipelineMode(connection_) == 0) lose({.message = pq().PQerrorMessage(connection_)});
  } else if (expected.kind != Expected::Kind::item) {
    return;
  }
  Item& item = expected.flight->items[expected.index];
  item.done = Clock::now();
  if (expected.index + 1 == expected.flight->items.size()) back_.push_back(expected.flight);
}

void Connection::single_rows() {
  if (expected_.empty()) return;
  const Expected& next = expected_.front();
  if (next.kind != Expected::Kind::item) return;
  const Item& item = next.flight->items[next.index];
  // Where it is refused all rows come at once, which is the same but for the memory.
  if (item.kind == Item::Kind::statement && item.max_rows != SIZE_MAX) (void)pq().PQsetSingleRowMode(connection_);
}

bool Connection::put_aside(const std::string& text) {
  if (pq().PQsendQueryParams(connection_, text.c_str(), 0, nullptr, nullptr, nullptr, nullptr, 0) == 0) return false;
  expected_.push_back({.kind = Expected::Kind::aside, .flight = nullptr, .index = 0, .name = {}, .key = {}});
  return true;
}

bool Connection::put_statement(const std::shared_ptr<Flight>& flight, std::size_t index) {
  const Statement& statement = *flight->items[index].statement;
  const Parameters p = encode(statement.bind);
  const int n = static_cast<int>(p.types.size());
  std::string key;
  key.reserve(statement.text.size() + 1 + sizeof(Oid) * p.types.size());
  key = statement.text;
  key += '\0';
  key.append(reinterpret_cast<const char*>(p.types.data()), sizeof(Oid) * p.types.size());
  auto it = prepared_.find(key);
  if (it != prepared_.end() && !it->second.confirmed && it->second.group != group_) {
    by_use_.erase(it->second.used);  // an error before it may skip it
    prepared_.erase(it);
    it = prepared_.end();
  }
  if (it == prepared_.end()) {
    if (prepared_.size() >= kMostPrepared) {
      const auto oldest = prepared_.find(by_use_.back());
      if (oldest->second.confirmed && !put_aside("DEALLOCATE " + oldest->second.name)) return false;
      prepared_.erase(oldest);
      by_use_.pop_back();
    }
    const std::string name = "prism_" + std::to_string(++names_);
    if (pq().PQsendPrepare(connection_, name.c_str(), statement.text.c_str(), n, p.types.data()) == 0) return false;
    expected_.push_back({.kind = Expected::Kind::prepare, .flight = flight, .index = index, .name = name, .key = key});
    by_use_.push_front(key);
    it = prepared_
             .emplace(std::move(key),
                      Prepared{.name = name, .confirmed = false, .group = group_, .used = by_use_.begin()})
             .first;
  } else {
    by_use_.splice(by_use_.begin(), by_use_, it->second.used);
  }
  return pq().PQsendQueryPrepared(connection_, it->second.name.c_str(), n, p.values.data(), p.lengths.data(),
                                  p.formats.data(), 0) != 0;
}

bool Connection::put(const std::shared_ptr<Flight>& flight, std::size_t index) {
  const Item& item = flight->items[index];
  bool sent = false;
  switch (item.kind) {
    case Item::Kind::statement:
      sent = put_statement(flight, index);
      break;
    case Item::Kind::control:
      sent = pq().PQsendQueryParams(connection_, item.text.c_str(), 0, nullptr, nullptr, nullptr, nullptr, 0) != 0;
      break;
    case Item::Kind::sync:
      sent = pq().PQpipelineSync(connection_) != 0;
      ++group_;
      break;
  }
  if (sent)
    expected_.push_back({.kind = Expected::Kind::item, .flight = flight, .index = index, .name = {}, .key = {}});
  return sent;
}

bool Connection::send(std::shared_ptr<Flight> flight) {
  if (closed_ || pq().PQstatus(connection_) == CONNECTION_BAD) return false;
  flight->sent = true;
  bool good = true;
  if (std::exchange(deallocate_all_, false)) {
    good = put_aside("DEALLOCATE ALL") && pq().PQpipelineSync(connection_) != 0;
    ++group_;
    if (good)
      expected_.push_back({.kind = Expected::Kind::aside, .flight = nullptr, .index = 1, .name = {}, .key = {}});
  }
  for (std::size_t i = 0; good && i < flight->items.size(); ++i) good = put(flight, i);
  if (good) {
    heard_ = Clock::now();
    watch();
    single_rows();
    flush();
  } else {
    // Part of it may be on its way. Something of it is expected, so that it is told.
    expected_.push_back({.kind = Expected::Kind::item, .flight = flight, .index = 0, .name = {}, .key = {}});
    lose({.message = pq().PQerrorMessage(connection_)});
  }
  tell();
  return true;
}

bool Connection::run_script(std::string text, std::shared_ptr<Flight> flight) {
  if (closed_ || pq().PQstatus(connection_) == CONNECTION_BAD || pq().PQexitPipelineMode(connection_) == 0)
    return false;
  flight->items.assign(1, Item::control(std::move(text)));
  flight->sent = true;
  expected_.push_back({.kind = Expected::Kind::script, .flight = flight, .index = 0, .name = {}, .key = {}});
  if (pq().PQsendQuery(connection_, flight->items[0].text.c_str()) == 0) {
    lose({.message = pq().PQerrorMessage(connection_)});
  } else {
    flush();
  }
  tell();
  return true;
}

void Connection::lose(Failure failure) {
  if (std::exchange(closed_, true)) return;
  std::ranges::replace(failure.message, '\n', ' ');
  while (failure.message.ends_with(' ')) failure.message.pop_back();
  if (failure.message.empty()) failure.message = "the connection was closed";
  if (fatal_) failure = *fatal_;
  std::shared_ptr<Flight> last;
  for (auto& expected : expected_) {
    if (!expected.flight || expected.flight == last) continue;
    last = expected.flight;
    last->lost = failure;
    last->ended = fatal_ && fatal_before_sync_;
    back_.push_back(last);
  }
  expected_.clear();
  socket_->watch.cancel();
  socket_->descriptor.release();  // cancels what waits for it; the library closes it
  pq().PQfinish(connection_);
  handle_->connection = nullptr;
  connection_ = nullptr;
  if (on_lost) std::exchange(on_lost, nullptr)();
}

void Connection::close() {
  if (closed_) return;
  lose({.message = "the connection was closed"});
  tell();
}

void Connection::tell() {
  if (std::exchange(telling_, true)) return;
  const auto self = shared_from_this();
  while (!back_.empty()) {
    const auto flight = std::move(back_.front());
    back_.erase(back_.begin());
    if (flight->done) std::exchange(flight->done, nullptr)();
  }
  telling_ = false;
}

void Connection::cancel(OffloadPool& pool, std::move_only_function<void()> after) {
  struct Freed {
    void operator()(PGcancel* c) const { pq().PQfreeCancel(c); }
  };
  std::unique_ptr<PGcancel, Freed> cancel(closed_ ? nullptr : pq().PQgetCancel(connection_));
  if (!cancel) return after();
  pool.submit([cancel = std::move(cancel), after = std::move(after), &loop = loop_]() mutable {
    std::array<char, 256> message{};
    (void)pq().PQcancel(cancel.get(), message.data(), static_cast<int>(message.size()));
    asio::post(loop.io(), std::move(after));
  });
}

}  // namespace prism::postgres

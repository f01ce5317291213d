#include "backends/sqlite/engine.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <filesystem>

#include "runtime/scope.h"

namespace prism::sqlite {
namespace detail {

// An exclusive writer's side of the conversation with the writing thread. Guarded by the engine's mutex.
struct Session {
  std::deque<std::shared_ptr<WriteOp>> work;
  std::shared_ptr<OneShot<Result<void>>> ending;  // set once: commit or roll back after the work
  bool commit = false;
  bool abandoned = false;      // the ExclusiveWriter is gone: roll back
  std::optional<Error> ended;  // set: what any further call answers
};

}  // namespace detail

namespace {

Error closed_error() {
  return Error{Code::unavailable, "ENGINE_CLOSED", "the database file is being closed", "", Retry::safe, {}, {}};
}
Error deadline_error() {
  return Error{Code::deadline_exceeded,
               "DEADLINE_EXCEEDED",
               "the deadline passed before the write was begun",
               "",
               Retry::safe,
               {},
               {}};
}

Result<void> sync_directory(const std::string& file) {
  auto directory = std::filesystem::path(file).parent_path();
  if (directory.empty()) directory = ".";
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool ok = fd >= 0 && ::fsync(fd) == 0;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (ok) return {};
  return fail(Code::failed_precondition, "DATABASE_CANNOT_OPEN", directory.string() + ": " + std::strerror(error),
              "check that the directory exists and may be written");
}

}  // namespace

// Queued like any operation; when its turn comes the writing thread serves its session until that ends.
struct Engine::LockOp final : WriteOp {
  LockOp(Engine* e, Clock::time_point until, Clock::duration t)
      : shot(&e->loop_), engine(e), deadline_at(until), timeout(t) {}
  Clock::time_point deadline() const noexcept override { return deadline_at; }
  bool begin() noexcept override { return shot.begin(); }
  Result<void> execute(Connection& /*connection*/) override { return {}; }
  void committed(CompletionBatch& batch) noexcept override {
    batch.add(shot.complete(std::unique_ptr<ExclusiveWriter>(new ExclusiveWriter(engine, session))));
  }
  void failed(Error error, CompletionBatch& batch) noexcept override {
    batch.add(shot.complete(std::unexpected(std::move(error))));
  }

  OneShot<Result<std::unique_ptr<ExclusiveWriter>>> shot;
  Engine* engine;
  Clock::time_point deadline_at;
  Clock::duration timeout;
  std::shared_ptr<detail::Session> session = std::make_shared<detail::Session>();
};

Engine::Engine(Runtime& runtime, std::string path, EngineOptions options)
    : runtime_(runtime),
      loop_(runtime.next_loop()),
      path_(std::move(path)),
      options_(options),
      commits_(loop_),
      foreign_commits_(loop_) {}

Task<Result<std::shared_ptr<Engine>>> Engine::open(Runtime& runtime, std::string path, EngineOptions options) {
  std::shared_ptr<Engine> engine(new Engine(runtime, std::move(path), options));
  auto started = co_await offload(runtime.files(), engine->loop_, [&engine] { return engine->start(); });
  if (!started) co_return std::unexpected(std::move(started).error());
  co_return engine;
}

Result<void> Engine::start() {
  PRISM_TRY(writer_, Connection::open(path_, Connection::Kind::writer, options_.writer_cache_kib));
  writer_->busy_timeout(options_.busy_timeout);
  PRISM_CHECK(
      writer_->execute("BEGIN IMMEDIATE; "
                       "CREATE TABLE IF NOT EXISTS prism_meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT"));
  const Id128 fresh = random_id();
  {
    PRISM_TRY(Query insert, writer_->prepare_once("INSERT OR IGNORE INTO prism_meta VALUES('incarnation', ?1)"));
    insert.bind_blob(1, std::string_view(reinterpret_cast<const char*>(fresh.data()), fresh.size()));
    PRISM_CHECK(insert.run());
    PRISM_TRY(Query select, writer_->prepare_once("SELECT value FROM prism_meta WHERE name = 'incarnation'"));
    PRISM_TRY(const bool row, select.step());
    const auto value = row ? select.blob(0) : std::string_view();
    if (value.size() != incarnation_.size()) {
      return fail(corrupt(writer_->handle(), "the file's incarnation is damaged"));
    }
    std::memcpy(incarnation_.data(), value.data(), value.size());
  }
  PRISM_CHECK(writer_->execute("COMMIT"));
  PRISM_CHECK(sync_directory(path_));
  PRISM_TRY(data_version_, writer_->integer("PRAGMA data_version"));
  PRISM_TRY(const auto page_size, writer_->integer("PRAGMA page_size"));
  page_size_ = static_cast<int>(page_size);
  sqlite3_wal_hook(
      writer_->handle(),
      [](void* self, sqlite3*, const char*, int pages) {
        static_cast<Engine*>(self)->wal_pages_ = pages;
        return SQLITE_OK;
      },
      this);
  writer_->while_busy([this] { expire_queued(); });
  thread_ = std::thread([this] {
    StallDetector::name_thread("sqlite-writer");
    work();
  });
  return {};
}

Engine::~Engine() {
  request_close();
  if (thread_.joinable()) thread_.join();
}

void Engine::request_close() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  arrived_.notify_all();
}

Task<void> Engine::close() {
  auto shot = std::make_shared<OneShot<void>>(&loop_);
  {
    const std::lock_guard lock(mutex_);
    if (ended_ || !thread_.joinable()) co_return;
    close_waiters_.push_back(shot);
  }
  request_close();
  co_await shot->wait({});
}

Result<void> Engine::submit(std::shared_ptr<WriteOp> op) {
  const std::size_t bytes = op->bytes();
  {
    const std::lock_guard lock(mutex_);
    if (closing_) return fail(closed_error());
    const std::size_t queued = queued_bytes_.load(std::memory_order_relaxed);
    if (queued != 0 && queued + bytes > options_.max_queued_bytes) {
      Error error{Code::resource_exhausted,
                  "ENGINE_OVERLOADED",
                  "the writes that wait for the database file hold " + std::to_string(queued) + " bytes already",
                  "send less at once, or retry later",
                  Retry::safe,
                  std::chrono::milliseconds(50),
                  {}};
      return fail(std::move(error));
    }
    queued_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    queue_.push_back(std::move(op));
  }
  arrived_.notify_one();
  return {};
}

Engine::Watch::Watch(Engine& engine) : engine_(engine) {
  bool first;
  {
    const std::lock_guard lock(engine_.mutex_);
    first = engine_.watches_++ == 0;
    if (first) engine_.nudged_ = true;
  }
  if (first) engine_.arrived_.notify_one();
}

Engine::Watch::~Watch() {
  const std::lock_guard lock(engine_.mutex_);
  --engine_.watches_;
}

Error Engine::overdue(Error error, const Context& context) {
  return error.reason == "QUERY_INTERRUPTED" && context.stopped() ? context.over(false) : std::move(error);
}

Result<std::unique_ptr<Connection>> Engine::take_reader() {
  {
    const std::lock_guard lock(readers_mutex_);
    if (!idle_readers_.empty()) {
      auto connection = std::move(idle_readers_.back());
      idle_readers_.pop_back();
      return connection;
    }
  }
  PRISM_TRY(auto connection, Connection::open(path_, Connection::Kind::reader, options_.reader_cache_kib));
  connection->busy_timeout(options_.busy_timeout);
  return connection;
}

void Engine::give_reader(std::unique_ptr<Connection> connection) {
  if (connection->in_transaction()) return;  // its rollback failed: not to be used again
  const std::lock_guard lock(readers_mutex_);
  if (idle_readers_.size() < options_.max_readers) idle_readers_.push_back(std::move(connection));
}

// --- the writing thread ---

void Engine::work() {
  while (true) {
    std::shared_ptr<WriteOp> lock_op;
    std::size_t bytes = 0;
    {
      std::unique_lock lock(mutex_);
      const auto due = [this] { return !queue_.empty() || closing_ || nudged_; };
      if (watches_ != 0) {
        arrived_.wait_for(lock, options_.foreign_poll, due);
      } else {
        arrived_.wait(lock, due);
      }
      nudged_ = false;
      if (queue_.empty() && closing_) break;
      while (!queue_.empty() && group_.size() < options_.max_group_ops) {
        auto& front = queue_.front();
        const bool exclusive = dynamic_cast<LockOp*>(front.get()) != nullptr;
        if (!group_.empty() && (exclusive || bytes + front->bytes() > options_.max_group_bytes)) break;
        bytes += front->bytes();
        if (exclusive) {
          lock_op = std::move(front);
          queue_.pop_front();
          break;
        }
        group_.push_back(std::move(front));
        queue_.pop_front();
      }
    }
    if (lock_op) {
      run_session(static_cast<LockOp&>(*lock_op));
    } else if (!group_.empty()) {
      run_group();
      group_.clear();
    } else {
      look_for_foreign_commits();
    }
    queued_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
    checkpoint_if_due();
  }
  {
    const std::lock_guard lock(readers_mutex_);
    idle_readers_.clear();
  }
  writer_.reset();  // the last connection of all processes checkpoints and removes the WAL
  std::vector<std::shared_ptr<OneShot<void>>> waiters;
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    waiters.swap(close_waiters_);
  }
  CompletionBatch batch;
  for (auto& waiter : waiters) batch.add(waiter->complete());
}

Result<void> Engine::begin_transaction() {
  PRISM_CHECK(writer_->run("BEGIN IMMEDIATE"));
  ++transaction_;
  look_for_foreign_commits();
  return {};
}

Result<void> Engine::commit() {
  PRISM_TRY(Query query, writer_->prepare("COMMIT"));
  if (const int rc = sqlite3_step(query.handle()); rc != SQLITE_DONE) {
    return fail(translate(writer_->handle(), rc, "commit", Step::commit));
  }
  return {};
}

void Engine::look_for_foreign_commits() {
  const auto version = writer_->integer("PRAGMA data_version");
  if (!version || *version == data_version_) return;
  data_version_ = *version;
  foreign_generation_.fetch_add(1, std::memory_order_acq_rel);
  CompletionBatch batch;
  foreign_commits_.notify_into(batch);
  commits_.notify_into(batch);
}

Result<void> Engine::execute(WriteOp& op) {
  try {
    return op.execute(*writer_);
  } catch (const std::exception& e) {
    return fail(Code::internal, "WRITE_FAILED", std::string("a write operation failed: ") + e.what());
  }
}

void Engine::run_group() {
  CompletionBatch batch;
  if (auto begun = begin_transaction(); !begun) {
    for (auto& op : group_) {
      if (op && op->begin()) op->failed(begun.error(), batch);
    }
    return;
  }
  std::size_t executed = 0;
  std::size_t broken_at = group_.size();
  std::optional<Error> broken;
  for (std::size_t i = 0; i < group_.size(); ++i) {
    auto& op = group_[i];
    if (!op) continue;
    if (!op->begin()) {
      op = nullptr;
      continue;
    }
    if (op->deadline() <= Clock::now()) {
      op->failed(deadline_error(), batch);
      op = nullptr;
      continue;
    }
    Result<void> done;
    if (op->may_fail_alone()) {
      done = writer_->run("SAVEPOINT alone");
      if (done) {
        done = execute(*op);
        if (!done && writer_->in_transaction()) {
          auto undone = writer_->run("ROLLBACK TO alone");
          auto released = writer_->run("RELEASE alone");
          if (undone && released) {
            op->failed(std::move(done).error(), batch);
            op = nullptr;
            continue;
          }
        } else if (done) {
          done = writer_->run("RELEASE alone");
        }
      }
    } else {
      done = execute(*op);
    }
    if (!done) {
      broken_at = i;
      broken = std::move(done).error();
      break;
    }
    ++executed;
  }
  if (!broken) {
    if (executed == 0) {
      (void)writer_->execute("ROLLBACK");
      return;
    }
    const Result<void> committed = commit();
    if (committed) {
      for (auto& op : group_) {
        if (op) op->committed(batch);
      }
      commits_.notify_into(batch);
      return;
    }
    broken = committed.error();
  }
  if (writer_->in_transaction()) (void)writer_->execute("ROLLBACK");
  const auto left = std::count_if(group_.begin(), group_.end(), [](const auto& op) { return op != nullptr; });
  const bool replay = left > 1 && broken->retry != Retry::unknown_outcome;
  for (std::size_t i = 0; i < group_.size(); ++i) {
    auto& op = group_[i];
    if (!op) continue;
    const bool begun = i <= broken_at;
    if (replay) {
      run_alone(*op, begun, batch);
    } else if (begun || op->begin()) {
      op->failed(*broken, batch);
    }
    op = nullptr;
  }
}

void Engine::run_alone(WriteOp& op, bool begun, CompletionBatch& batch) {
  if (!begun && !op.begin()) return;
  if (auto r = begin_transaction(); !r) return op.failed(std::move(r).error(), batch);
  if (auto r = execute(op); !r) {
    if (writer_->in_transaction()) (void)writer_->execute("ROLLBACK");
    return op.failed(std::move(r).error(), batch);
  }
  if (auto r = commit(); !r) {
    if (writer_->in_transaction()) (void)writer_->execute("ROLLBACK");
    return op.failed(std::move(r).error(), batch);
  }
  op.committed(batch);
  commits_.notify_into(batch);
}

void Engine::run_session(LockOp& op) {
  if (auto begun = begin_transaction(); !begun) {
    CompletionBatch batch;
    if (op.begin()) op.failed(std::move(begun).error(), batch);
    return;
  }
  if (!op.begin()) {
    (void)writer_->execute("ROLLBACK");
    return;
  }
  auto session = op.session;
  const auto until = Clock::now() + op.timeout;
  {
    CompletionBatch batch;
    if (op.deadline() <= Clock::now()) {
      (void)writer_->execute("ROLLBACK");
      op.failed(deadline_error(), batch);
      return;
    }
    op.committed(batch);
  }
  std::optional<Error> ended;
  bool commit = false;
  while (!ended && !commit) {
    std::shared_ptr<WriteOp> work;
    {
      std::unique_lock lock(mutex_);
      const auto tick = std::min(until, Clock::now() + std::chrono::milliseconds(20));
      arrived_.wait_until(lock, tick,
                          [&] { return !session->work.empty() || session->ending || session->abandoned || closing_; });
      if (session->abandoned) {
        ended = Error{Code::aborted, "TRANSACTION_ENDED", "the transaction was given up", "", Retry::safe, {}, {}};
      } else if (!session->work.empty()) {
        work = std::move(session->work.front());
        session->work.pop_front();
      } else if (session->ending) {
        commit = session->commit;
        if (!commit)
          ended = Error{Code::aborted, "TRANSACTION_ENDED", "the transaction was rolled back", "", Retry::safe, {}, {}};
      } else if (closing_) {
        ended = closed_error();
      } else if (Clock::now() >= until) {
        ended = Error{Code::aborted,
                      "TRANSACTION_TIMEOUT",
                      "the transaction was open for too long and was rolled back",
                      "finish transactions sooner, or ask for a longer time",
                      Retry::safe,
                      {},
                      {}};
      }
    }
    expire_queued();
    if (!work || !work->begin()) continue;
    CompletionBatch batch;
    if (auto done = execute(*work); done) {
      work->committed(batch);
    } else {
      if (!writer_->in_transaction()) ended = done.error();  // SQLite has rolled it back by itself (disk full)
      work->failed(std::move(done).error(), batch);
    }
  }
  CompletionBatch batch;
  Result<void> result;
  if (commit) {
    result = this->commit();
    if (result) commits_.notify_into(batch);
    ended = Error{Code::aborted, "TRANSACTION_ENDED", "the transaction is over", "", Retry::never, {}, {}};
  }
  if (writer_->in_transaction()) (void)writer_->execute("ROLLBACK");
  std::deque<std::shared_ptr<WriteOp>> left;
  std::shared_ptr<OneShot<Result<void>>> ending;
  {
    const std::lock_guard lock(mutex_);
    if (session->ending && !commit && session->commit) result = fail(*ended);
    session->ended = ended;
    left.swap(session->work);
    ending = std::move(session->ending);
  }
  for (auto& work : left) {
    if (work->begin()) work->failed(*ended, batch);
  }
  if (ending) batch.add(ending->complete(std::move(result)));
}

void Engine::expire_queued() {
  const auto now = Clock::now();
  CompletionBatch batch;
  std::vector<std::shared_ptr<WriteOp>> overdue;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(queue_, [&](std::shared_ptr<WriteOp>& op) {
      if (op->deadline() > now) return false;
      queued_bytes_.fetch_sub(op->bytes(), std::memory_order_relaxed);
      overdue.push_back(std::move(op));
      return true;
    });
  }
  // While the group waits for another process's lock none of it has begun.
  if (!writer_->in_transaction()) {
    for (auto& op : group_) {
      if (op && op->deadline() <= now) overdue.push_back(std::move(op));
    }
  }
  for (auto& op : overdue) {
    if (op->begin()) op->failed(deadline_error(), batch);
  }
}

void Engine::checkpoint_if_due() {
  if (wal_pages_ < checkpointed_pages_) checkpointed_pages_ = 0;  // the WAL has begun anew
  const auto bytes = [&](int pages) { return static_cast<std::size_t>(pages) * static_cast<std::size_t>(page_size_); };
  if (bytes(wal_pages_ - checkpointed_pages_) < options_.checkpoint_bytes) return;
  // A passive one waits for nobody. The WAL begins anew once all of it is copied and no reader needs it; if readers
  // keep that from happening for long, wait for them, a little.
  int mode = SQLITE_CHECKPOINT_PASSIVE;
  if (bytes(wal_pages_) >= 8 * options_.checkpoint_bytes) {
    mode = SQLITE_CHECKPOINT_RESTART;
    writer_->busy_timeout(std::chrono::milliseconds(50));
  }
  int in_wal = 0;
  int copied = 0;
  sqlite3_wal_checkpoint_v2(writer_->handle(), nullptr, mode, &in_wal, &copied);
  writer_->busy_timeout(options_.busy_timeout);
  checkpointed_pages_ = wal_pages_;
}

// --- exclusive writers ---

Task<Result<std::unique_ptr<ExclusiveWriter>>> Engine::lock(Context context, Clock::duration timeout) {
  auto op = std::make_shared<LockOp>(this, context.deadline(), timeout);
  if (auto queued = submit(op); !queued) co_return std::unexpected(std::move(queued).error());
  if (co_await op->shot.wait(context.stop()) != Outcome::done) co_return std::unexpected(context.over(false));
  co_return op->shot.take();
}

ExclusiveWriter::ExclusiveWriter(Engine* engine, std::shared_ptr<detail::Session> session)
    : engine_(engine), session_(std::move(session)) {}

ExclusiveWriter::~ExclusiveWriter() {
  {
    const std::lock_guard lock(engine_->mutex_);
    if (session_->ended || session_->ending) return;
    session_->abandoned = true;
  }
  engine_->arrived_.notify_all();
}

Result<void> ExclusiveWriter::submit(std::shared_ptr<WriteOp> op) {
  {
    const std::lock_guard lock(engine_->mutex_);
    if (session_->ended) return fail(*session_->ended);
    session_->work.push_back(std::move(op));
  }
  engine_->arrived_.notify_all();
  return {};
}

namespace {
Task<Result<void>> wait_for_end(Context context, std::shared_ptr<OneShot<Result<void>>> shot) {
  if (co_await shot->wait(context.stop()) != Outcome::done) co_return std::unexpected(context.over(true));
  co_return shot->take();
}
}  // namespace

Task<Result<void>> ExclusiveWriter::commit(Context context) {
  auto shot = std::make_shared<OneShot<Result<void>>>(&engine_->loop_);
  {
    const std::lock_guard lock(engine_->mutex_);
    if (session_->ended) co_return fail(*session_->ended);
    if (session_->ending)
      co_return fail(Code::failed_precondition, "TRANSACTION_ENDED", "the transaction is being ended already");
    session_->commit = true;
    session_->ending = shot;
  }
  engine_->arrived_.notify_all();
  co_return co_await wait_for_end(std::move(context), std::move(shot));
}

Task<void> ExclusiveWriter::rollback(Context context) {
  auto shot = std::make_shared<OneShot<Result<void>>>(&engine_->loop_);
  {
    const std::lock_guard lock(engine_->mutex_);
    if (session_->ended || session_->ending) co_return;
    session_->ending = shot;
  }
  engine_->arrived_.notify_all();
  (void)co_await wait_for_end(std::move(context), std::move(shot));
}

}  // namespace prism::sqlite

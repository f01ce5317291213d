// Engine: one SQLite file, one writing thread with group commit, reading connections on the file pool.
//
// Writers hand in operations; the thread takes all that have come, runs them in one transaction, commits once (fsync)
// and completes them together. Nobody waits for a timer: a group is what arrived while the previous one was being
// committed. Several processes may have the same file open.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "backends/sqlite/connection.h"
#include "base/ids.h"
#include "base/types.h"
#include "runtime/context.h"
#include "runtime/loop.h"
#include "runtime/one_shot.h"
#include "runtime/task.h"

namespace prism::sqlite {

// One unit of work of the writing thread. All methods are called on that thread, except where said.
class WriteOp {
 public:
  virtual ~WriteOp() = default;
  // What it holds in memory, for the bound of the queue. Constant; any thread.
  virtual std::size_t bytes() const noexcept { return 512; }
  // When it must have begun; later it fails with DEADLINE_EXCEEDED. Constant; any thread.
  virtual Clock::time_point deadline() const noexcept { return Clock::time_point::max(); }
  // An operation that may well fail alone (a user's statement, a condition): it runs in a savepoint of its own. When
  // another kind fails, the group is rolled back and run again one by one.
  virtual bool may_fail_alone() const noexcept { return false; }
  // Called once, inside the open transaction, before the first execute(). False: its waiter has gone; it is dropped.
  virtual bool begin() noexcept = 0;
  // May be called again after a rollback: it must start afresh each time. No BEGIN, COMMIT or ROLLBACK in it.
  virtual Result<void> execute(Connection& connection) = 0;
  // Exactly one of the two, once, unless begin() said false.
  virtual void committed(CompletionBatch& batch) noexcept = 0;
  virtual void failed(Error error, CompletionBatch& batch) noexcept = 0;
};

class Engine;

namespace detail {
struct Session;

// The operation behind Engine::write and ExclusiveWriter::run: a closure and the coroutine that waits for it.
template <class T, class F>
class ClosureOp final : public WriteOp {
 public:
  ClosureOp(EventLoop* loop, Clock::time_point deadline, std::size_t bytes, bool alone, F work)
      : shot(loop), deadline_(deadline), bytes_(bytes), alone_(alone), work_(std::move(work)) {}
  std::size_t bytes() const noexcept override { return bytes_; }
  Clock::time_point deadline() const noexcept override { return deadline_; }
  bool may_fail_alone() const noexcept override { return alone_; }
  bool begin() noexcept override { return shot.begin(); }
  Result<void> execute(Connection& connection) override {
    if constexpr (std::is_void_v<T>) {
      return work_(connection);
    } else {
      Result<T> r = work_(connection);
      if (!r) return std::unexpected(std::move(r).error());
      value_.emplace(std::move(*r));
      return {};
    }
  }
  void committed(CompletionBatch& batch) noexcept override {
    if constexpr (std::is_void_v<T>) {
      batch.add(shot.complete(Result<void>()));
    } else {
      batch.add(shot.complete(Result<T>(std::move(*value_))));
    }
  }
  void failed(Error error, CompletionBatch& batch) noexcept override {
    batch.add(shot.complete(Result<T>(std::unexpected(std::move(error)))));
  }

  OneShot<Result<T>> shot;

 private:
  Clock::time_point deadline_;
  std::size_t bytes_;
  bool alone_;
  F work_;
  std::optional<std::conditional_t<std::is_void_v<T>, bool, T>> value_;
};
}  // namespace detail

// The writer for oneself: one open transaction, in which closures run on the writing thread while all other operations
// wait. Made by Engine::lock. One call at a time. Destroying it without commit or rollback rolls back (without
// waiting). After its time is over it is rolled back; every later call answers TRANSACTION_TIMEOUT.
class ExclusiveWriter {
 public:
  ~ExclusiveWriter();
  ExclusiveWriter(const ExclusiveWriter&) = delete;
  ExclusiveWriter& operator=(const ExclusiveWriter&) = delete;

  // `work`: Result<T>(Connection&), run in order on the writing thread. An error of its own leaves the transaction
  // open.
  template <class F>
  auto run(Context context, F work) -> Task<std::invoke_result_t<F&, Connection&>>;
  Task<Result<void>> commit(Context context);  // shield the context; unknown_outcome is possible
  Task<void> rollback(Context context);

 private:
  friend class Engine;
  ExclusiveWriter(Engine* engine, std::shared_ptr<detail::Session> session);
  Result<void> submit(std::shared_ptr<WriteOp> op);

  Engine* engine_;
  std::shared_ptr<detail::Session> session_;
};

struct EngineOptions {
  std::size_t max_queued_bytes = 64UL << 20;  // of operations that wait; more are refused with ENGINE_OVERLOADED
  std::size_t max_group_bytes = 8UL << 20;    // of one transaction (one operation is always taken)
  std::size_t max_group_ops = 1024;
  std::size_t max_readers = 4;               // reading connections kept open
  int writer_cache_kib = 2048;               // page cache
  int reader_cache_kib = 512;                // of each reading connection
  std::size_t checkpoint_bytes = 8UL << 20;  // the WAL is copied into the file when it has grown beyond this
  Clock::duration foreign_poll = std::chrono::milliseconds(20);  // how soon commits of other processes are noticed
  Clock::duration busy_timeout = std::chrono::seconds(10);       // how long to wait for another process's transaction
};

// Thread-safe. Must outlive every call on it. The destructor closes (blocking) if close() was not awaited.
class Engine {
 public:
  // Opens or makes the file and its directory's entry durable; blocking work runs on runtime.files(). The runtime must
  // outlive it.
  static Task<Result<std::shared_ptr<Engine>>> open(Runtime& runtime, std::string path, EngineOptions options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Queues an operation. An error (ENGINE_OVERLOADED with retry_after, ENGINE_CLOSED; both safe to retry) means that
  // none of its methods will be called. Operations of one thread are run in the order of submission.
  Result<void> submit(std::shared_ptr<WriteOp> op);

  // Runs `work`, a Result<T>(Connection&), inside the writer's transaction and answers after the commit. It may run
  // more than once (see WriteOp::execute) and on another thread than the caller's: it must own what it uses, since a
  // caller whose context is stopped is released at once, with unknown_outcome if the work had begun. `alone`: see
  // WriteOp::may_fail_alone. When it answers an error its writes are undone.
  template <class F>
  auto write(Context context, F work, bool alone = true, std::size_t bytes = 512)
      -> Task<std::invoke_result_t<F&, Connection&>>;

  // Runs `work`, a Result<T>(Connection&), in a snapshot on a reading connection of the file pool. It is interrupted
  // when the context is over; the caller always waits for its end, so it may refer to the caller's frame.
  template <class F>
  auto read(Context context, F work) -> Task<std::invoke_result_t<F&, Connection&>>;

  // Waits for its turn, opens a transaction and holds up all other writers until it ends, `timeout` at most.
  Task<Result<std::unique_ptr<ExclusiveWriter>>> lock(Context context,
                                                      Clock::duration timeout = std::chrono::seconds(30));

  // Notified after every commit of this engine and when another process's is noticed, the latter only while a Watch
  // lives.
  Notifier& commits() noexcept { return commits_; }
  // The same, for commits of other processes only.
  Notifier& foreign_commits() noexcept { return foreign_commits_; }
  // Counts (from 1) the times that the writer saw that another process had committed. Written on the writing thread
  // inside the transaction before its first operation: what an operation remembers of the file is void when this has
  // changed.
  std::uint64_t foreign_generation() const noexcept { return foreign_generation_.load(std::memory_order_acquire); }

  // The number of the open transaction, counted from 1 (a group that is replayed has another). Writing thread only:
  // what an operation has prepared in memory is void when this has changed without its commit.
  std::uint64_t transaction() const noexcept { return transaction_; }

  // While one lives, commits of other processes are looked for.
  class Watch {
   public:
    explicit Watch(Engine& engine);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

   private:
    Engine& engine_;
  };

  EventLoop& loop() noexcept { return loop_; }
  Runtime& runtime() noexcept { return runtime_; }
  const std::string& path() const noexcept { return path_; }
  Id128 incarnation() const noexcept { return incarnation_; }  // of the file; kept in it since it was made
  std::size_t queued_bytes() const noexcept { return queued_bytes_.load(std::memory_order_relaxed); }

  // Runs what is queued, ends an exclusive writer, closes the file. Reads must have ended. Idempotent.
  Task<void> close();

 private:
  friend class ExclusiveWriter;
  struct LockOp;
  using Group = std::vector<std::shared_ptr<WriteOp>>;

  Engine(Runtime& runtime, std::string path, EngineOptions options);
  Result<void> start();  // blocking
  void work();
  void run_group();
  void run_alone(WriteOp& op, bool begun, CompletionBatch& batch);
  Result<void> execute(WriteOp& op);
  void run_session(LockOp& op);
  Result<void> begin_transaction();
  Result<void> commit();
  void look_for_foreign_commits();
  void checkpoint_if_due();
  void expire_queued();
  void request_close();
  Result<std::unique_ptr<Connection>> take_reader();
  void give_reader(std::unique_ptr<Connection> connection);
  static Error overdue(Error error, const Context& context);

  Runtime& runtime_;
  EventLoop& loop_;
  const std::string path_;
  const EngineOptions options_;
  Id128 incarnation_{};

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::shared_ptr<WriteOp>> queue_;  // guarded by mutex_
  std::size_t watches_ = 0;                     // guarded by mutex_
  bool closing_ = false;                        // guarded by mutex_
  bool nudged_ = false;                         // guarded by mutex_
  std::atomic<std::size_t> queued_bytes_{0};
  std::atomic<std::uint64_t> foreign_generation_{1};
  Notifier commits_;
  Notifier foreign_commits_;
  bool ended_ = false;                                         // the writing thread has; guarded by mutex_
  std::vector<std::shared_ptr<OneShot<void>>> close_waiters_;  // guarded by mutex_

  std::mutex readers_mutex_;
  std::vector<std::unique_ptr<Connection>> idle_readers_;  // guarded by readers_mutex_

  // Writing thread only.
  Group group_;  // what is being run; finished ones are null
  std::unique_ptr<Connection> writer_;
  std::int64_t data_version_ = 0;
  std::uint64_t transaction_ = 0;
  int wal_pages_ = 0;           // after the last commit
  int checkpointed_pages_ = 0;  // of them, those seen by the last checkpoint
  int page_size_ = 4096;
  std::thread thread_;
};

template <class F>
auto Engine::write(Context context, F work, bool alone, std::size_t bytes)
    -> Task<std::invoke_result_t<F&, Connection&>> {
  using T = typename std::invoke_result_t<F&, Connection&>::value_type;
  auto op = std::make_shared<detail::ClosureOp<T, F>>(&loop_, context.deadline(), bytes, alone, std::move(work));
  if (auto queued = submit(op); !queued) co_return std::unexpected(std::move(queued).error());
  const Outcome outcome = co_await op->shot.wait(context.stop());
  if (outcome != Outcome::done) co_return std::unexpected(context.over(outcome == Outcome::abandoned));
  co_return op->shot.take();
}

template <class F>
auto Engine::read(Context context, F work) -> Task<std::invoke_result_t<F&, Connection&>> {
  using R = std::invoke_result_t<F&, Connection&>;
  if (context.stopped()) co_return std::unexpected(context.over(false));
  auto job = [this, &context, &work]() -> R {
    auto connection = take_reader();
    if (!connection) return std::unexpected(std::move(connection).error());
    (*connection)->interrupt_with(context);
    R result = [&]() -> R {
      if (auto begun = (*connection)->begin_read(); !begun) return std::unexpected(std::move(begun).error());
      return work(**connection);
    }();
    (*connection)->interrupt_with(std::nullopt);
    (*connection)->end_read();
    give_reader(std::move(*connection));
    if (!result) return std::unexpected(overdue(std::move(result).error(), context));
    return result;
  };
  co_return co_await offload(runtime_.files(), loop_, std::move(job));
}

template <class F>
auto ExclusiveWriter::run(Context context, F work) -> Task<std::invoke_result_t<F&, Connection&>> {
  using T = typename std::invoke_result_t<F&, Connection&>::value_type;
  auto op = std::make_shared<detail::ClosureOp<T, F>>(&engine_->loop(), context.deadline(), 0, false, std::move(work));
  if (auto queued = submit(op); !queued) co_return std::unexpected(std::move(queued).error());
  const Outcome outcome = co_await op->shot.wait(context.stop());
  if (outcome != Outcome::done) co_return std::unexpected(context.over(outcome == Outcome::abandoned));
  co_return op->shot.take();
}

}  // namespace prism::sqlite

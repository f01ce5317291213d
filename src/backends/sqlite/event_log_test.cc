#include "backends/sqlite/event_log.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "capabilities/ack_set.h"
#include "capabilities/delivery_window.h"
#include "capabilities/testing/event_log_suite.h"

namespace prism::sqlite {
namespace {

struct TempDir {
  TempDir() : path(std::filesystem::temp_directory_path() / ("prism-log-" + to_hex(random_id()))) {
    std::filesystem::create_directories(path);
  }
  ~TempDir() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

// One engine and log, as a process has it.
struct Process {
  Process(Runtime& runtime, const std::string& file, EventLogOptions options = {}, EngineOptions engine_options = {}) {
    auto opened = run_blocking(Engine::open(runtime, file, engine_options));
    EXPECT_TRUE(opened) << opened.error().describe();
    engine = *opened;
    auto made = run_blocking(open_event_log(engine, options));
    EXPECT_TRUE(made) << made.error().describe();
    log = *made;
  }
  ~Process() {
    run_blocking(log->close({}));
    log.reset();
    run_blocking(engine->close());
  }
  std::shared_ptr<Engine> engine;
  std::shared_ptr<EventLog> log;
};

class Bed final : public EventLogBed {
 public:
  Bed() { open(); }
  ~Bed() override { shut(); }
  EventLog& log() override { return *one_->log; }
  EventLog& other() override { return *two_->log; }
  EventLog& dying() override {
    if (!dying_) {
      dying_ = std::make_unique<Process>(
          runtime_, file(),
          EventLogOptions{.session_timeout = std::chrono::milliseconds(300), .heartbeat = std::chrono::hours(1)});
    }
    return *dying_->log;
  }
  void restart() override {
    shut();
    open();
  }
  void recreate() override {
    shut();
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(file() + suffix);
    open();
  }

 private:
  std::string file() const { return dir_.path / "log.db"; }
  void open() {
    one_ = std::make_unique<Process>(runtime_, file());
    two_ = std::make_unique<Process>(runtime_, file());
  }
  void shut() {
    dying_.reset();
    two_.reset();
    one_.reset();
  }
  TempDir dir_;
  Runtime runtime_;
  std::unique_ptr<Process> one_;
  std::unique_ptr<Process> two_;
  std::unique_ptr<Process> dying_;
};

struct EventLogTest : testing::Test {
  std::string file() const { return dir.path / "log.db"; }
  static Context soon() { return Context().with_timeout(std::chrono::seconds(60)); }
  static void make_topic(EventLog& log, std::uint32_t partitions = 8) {
    ASSERT_TRUE(run_blocking(log.ensure_topic(soon(), {.name = "t", .partitions = partitions})));
  }
  static Batch<Result<Appended>> append(EventLog& log, std::size_t n, std::size_t bytes, const std::string& key = "k") {
    Batch<Record> records;
    for (std::size_t i = 0; i < n; ++i)
      records.push_back({.id = uuid7(), .key = key, .headers = {}, .body = Bytes(std::string(bytes, 'x'))});
    return run_blocking(log.append(soon(), "t", std::move(records)));
  }
  static GroupSpec group() {
    GroupSpec spec;
    spec.topic = "t";
    spec.group = "g";
    return spec;
  }
  static Batch<Delivery> receive(GroupConsumer& c, std::size_t n) {
    Batch<Delivery> all;
    while (all.size() < n) {
      auto some = run_blocking(c.receive(soon(), n - all.size(), 64UL << 20));
      if (!some || some->empty()) break;
      for (auto& d : *some) all.push_back(std::move(d));
    }
    EXPECT_EQ(all.size(), n);
    return all;
  }
  static Settled ack(GroupConsumer& c, const Delivery& d) {
    return run_blocking(c.settle(soon(), Batch<Settle>(1, Settle{d.token, Settle::Do::ack, {}, ""}))).at(0);
  }
  TempDir dir;
  Runtime runtime;
};

TEST_F(EventLogTest, AFullDiskLosesNothing) {
  Process p(runtime, file());
  make_topic(*p.log, 1);
  ASSERT_TRUE(append(*p.log, 1, 1000).at(0));
  const auto limit = [&](std::int64_t more) {
    return run_blocking(p.engine->write({}, [more](Connection& c) -> Result<void> {
      PRISM_TRY(const auto pages, c.integer("PRAGMA page_count"));
      return c.execute("PRAGMA max_page_count=" + std::to_string(pages + more));
    }));
  };
  ASSERT_TRUE(limit(50));
  std::size_t good = 1;
  std::optional<Error> error;
  for (int i = 0; i < 100 && !error; ++i) {
    for (auto& r : append(*p.log, 5, 3000)) {
      if (r) {
        EXPECT_EQ(r->at.parts().at(0).offset, good++);
      } else {
        error = r.error();
      }
    }
  }
  ASSERT_TRUE(error);
  EXPECT_EQ(error->reason, "DISK_FULL");
  EXPECT_EQ(error->retry, Retry::safe);
  ASSERT_TRUE(limit(10000));
  EXPECT_EQ(append(*p.log, 1, 1000).at(0)->at.parts().at(0).offset, good);  // no gap
  auto reader = *run_blocking(p.log->read({}, "t", {}, {}));
  std::size_t read = 0;
  for (auto some = run_blocking(reader->next(soon(), 1UL << 20)); read <= good;
       some = run_blocking(reader->next(soon(), 1UL << 20))) {
    ASSERT_TRUE(some && !some->empty());
    read += some->size();
    if (read > good) break;
  }
  EXPECT_EQ(read, good + 1);
}

TEST_F(EventLogTest, AFileLockedByAnotherProcessIsSaid) {
  Process p(runtime, file(), {}, {.busy_timeout = std::chrono::milliseconds(30)});
  make_topic(*p.log);
  ASSERT_TRUE(append(*p.log, 1, 10).at(0));
  auto c = *run_blocking(p.log->join(soon(), group()));
  const auto got = receive(*c, 1);
  auto other = Connection::open(file(), Connection::Kind::writer, 100);
  ASSERT_TRUE(other && (*other)->execute("BEGIN IMMEDIATE"));
  const auto refused = append(*p.log, 1, 10).at(0);
  EXPECT_EQ(refused.error().reason, "DATABASE_BUSY");
  EXPECT_EQ(refused.error().retry, Retry::safe);
  EXPECT_EQ(ack(*c, got[0]), Settled::unknown);
  ASSERT_TRUE((*other)->execute("ROLLBACK"));
  EXPECT_EQ(ack(*c, got[0]), Settled::ok);  // the delivery was not used up by it
  EXPECT_EQ(append(*p.log, 1, 10).at(0)->at.parts().at(0).offset, 1U);
  run_blocking(c->close({}));
}

TEST_F(EventLogTest, AFullQueueIsSaid) {
  Process p(runtime, file(), {}, {.max_queued_bytes = 20000});
  make_topic(*p.log);
  auto lock = run_blocking(p.engine->lock({}));  // nothing is written while it lasts
  ASSERT_TRUE(lock);
  Scope scope;
  struct Append {
    static Task<void> run(EventLog* log, Batch<Record> records, Batch<Result<Appended>>* out) {
      *out = co_await log->append(Context(), "t", std::move(records));
    }
  };
  std::vector<Batch<Result<Appended>>> results(3);
  for (auto& r : results) {
    scope.spawn(Append::run(
        p.log.get(),
        Batch<Record>(1,
                      Record{.id = "", .key = "k", .headers = {}, .body = Bytes(std::string(9000, 'x')), .time = {}}),
        &r));
  }
  run_blocking((*lock)->rollback({}));
  scope.join_blocking();
  EXPECT_TRUE(results[0].at(0) && results[1].at(0));
  EXPECT_EQ(results[2].at(0).error().reason, "LOG_FULL");
  EXPECT_EQ(results[2].at(0).error().code, Code::resource_exhausted);
  EXPECT_EQ(results[2].at(0).error().retry, Retry::safe);
}

// What is queued behind a lock is run as one group; one of it fails, and all others are run again.
TEST_F(EventLogTest, AppendsAndAcksKeepTheirPlaceWhenTheirGroupIsReplayed) {
  Process p(runtime, file());
  make_topic(*p.log, 1);
  ASSERT_TRUE(append(*p.log, 2, 10).at(0));
  auto c = *run_blocking(p.log->join(soon(), group()));
  const auto got = receive(*c, 2);
  struct Run {
    static Task<void> append(EventLog* log, Batch<Result<Appended>>* out) {
      Batch<Record> records(3, Record{.id = "", .key = "k", .headers = {}, .body = Bytes("x"), .time = {}});
      *out = co_await log->append(Context(), "t", std::move(records));
    }
    static Task<void> settle(GroupConsumer* c, std::string token, Batch<Settled>* out) {
      *out = co_await c->settle(Context(), Batch<Settle>(1, Settle{std::move(token), Settle::Do::ack, {}, ""}));
    }
    static Task<void> fail(Engine* engine, Result<void>* out) {
      *out = co_await engine->write(
          {}, [](Connection& connection) { return connection.execute("INSERT INTO none VALUES(1)"); }, false);
    }
  };
  std::vector<Batch<Result<Appended>>> appended(2);
  std::vector<Batch<Settled>> settled(2);
  Result<void> failed;
  {
    Scope scope;
    auto lock = run_blocking(p.engine->lock({}));
    ASSERT_TRUE(lock);
    scope.spawn(Run::append(p.log.get(), &appended[0]));
    scope.spawn(Run::settle(c.get(), got[1].token, &settled[0]));
    scope.spawn(Run::fail(p.engine.get(), &failed));
    scope.spawn(Run::append(p.log.get(), &appended[1]));
    scope.spawn(Run::settle(c.get(), got[0].token, &settled[1]));
    run_blocking((*lock)->rollback({}));
    scope.join_blocking();
  }
  EXPECT_FALSE(failed);
  std::uint64_t next = 2;
  for (const auto& batch : appended) {
    for (const auto& r : batch) EXPECT_EQ(r->at.parts().at(0).offset, next++);
  }
  EXPECT_EQ(settled[0].at(0), Settled::ok);
  EXPECT_EQ(settled[1].at(0), Settled::ok);
  const auto floors = run_blocking(p.log->floors({}, "t", "g"));
  EXPECT_EQ(floors->at(0).acked_below, 2U);
  EXPECT_EQ(floors->at(0).end, 8U);
  run_blocking(c->close({}));
}

// Deliveries are noted although nothing was settled: a record that ends its process each time is found out.
TEST_F(EventLogTest, AttemptsOutliveTheConsumer) {
  const EventLogOptions mortal{.session_timeout = std::chrono::milliseconds(400), .heartbeat = std::chrono::hours(1)};
  {
    Process p(runtime, file());
    make_topic(*p.log);
    append(*p.log, 1, 10);
  }
  std::vector<std::unique_ptr<Process>> dead;
  std::vector<std::unique_ptr<GroupConsumer>> consumers;
  for (std::uint32_t attempt = 1; attempt <= 4; ++attempt) {
    dead.push_back(std::make_unique<Process>(runtime, file(), mortal));
    consumers.push_back(*run_blocking(dead.back()->log->join(soon(), group())));
    EXPECT_EQ(receive(*consumers.back(), 1)[0].attempt, attempt);
  }
}

// proves: L-24
TEST_F(EventLogTest, NothingAcknowledgedIsLostWhenTheProcessIsKilled) {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
  GTEST_SKIP() << "the thread sanitizer does not follow a fork";
#endif
#endif
  // In a child: two producers and a consumer write down what was acknowledged, until the parent kills it.
  struct Line {
    char what;  // 'p': published, 'c': consumed
    std::uint32_t partition;
    std::uint64_t offset;
    std::uint64_t number;
  };
  const EventLogOptions options{.session_timeout = std::chrono::milliseconds(500),
                                .heartbeat = std::chrono::milliseconds(100)};
  struct Child {
    static void note(int fd, Line line) {
      if (::write(fd, &line, sizeof line) != sizeof line) ::_exit(3);
    }
    static Task<void> produce(EventLog* log, int fd, std::uint64_t producer) {
      for (std::uint64_t n = 0;; ++n) {
        Batch<Record> batch;
        for (int i = 0; i < 7; ++i) {
          const std::uint64_t number = (n * 7 + i) * 2 + producer;
          batch.push_back({.id = "",
                           .key = "k" + std::to_string(number % 10),
                           .headers = {},
                           .body = Bytes(std::to_string(number))});
        }
        auto results = co_await log->append(Context(), "t", std::move(batch));
        for (std::uint64_t i = 0; i < 7; ++i) {
          if (!results[i]) ::_exit(4);
          const auto& part = results[i]->at.parts().at(0);
          note(fd, {'p', part.partition, part.offset, (n * 7 + i) * 2 + producer});
        }
      }
    }
    static Task<void> consume(EventLog* log, int fd) {
      auto c = co_await log->join(Context(), group());
      if (!c) ::_exit(5);
      while (true) {
        auto got = co_await (*c)->receive(Context(), 20, 1UL << 20);
        if (!got) ::_exit(6);
        Batch<Settle> settles;
        for (const auto& d : *got) settles.push_back({d.token, Settle::Do::ack, {}, ""});
        const auto settled = co_await (*c)->settle(Context(), std::move(settles));
        for (std::size_t i = 0; i < got->size(); ++i) {
          const auto& part = (*got)[i].at.parts().at(0);
          if (settled[i] == Settled::ok)
            note(fd, {'c', part.partition, part.offset, std::stoull((*got)[i].record.body.str())});
        }
      }
    }
  };
  for (int round = 0; round < 3; ++round) {
    TempDir folder;
    const std::string path = folder.path / "log.db";
    int fds[2];
    ASSERT_EQ(::pipe(fds), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(fds[0]);
      Runtime own;
      Process p(own, path, options);
      make_topic(*p.log);
      Scope scope;
      scope.spawn(Child::produce(p.log.get(), fds[1], 0));
      scope.spawn(Child::produce(p.log.get(), fds[1], 1));
      scope.spawn(Child::consume(p.log.get(), fds[1]));
      ::pause();
      ::_exit(2);
    }
    ::close(fds[1]);
    std::vector<Line> lines;
    Line line{};
    std::size_t consumed = 0;
    bool killed = false;
    while (::read(fds[0], &line, sizeof line) == sizeof line) {
      lines.push_back(line);
      consumed += line.what == 'c' ? 1 : 0;
      if (!killed && lines.size() > 1500 && consumed > 100) {
        ::kill(child, SIGKILL);
        killed = true;
      }
    }
    ::close(fds[0]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << WEXITSTATUS(status);

    Runtime own;
    Process p(own, path, options);
    std::map<std::pair<std::uint32_t, std::uint64_t>, std::uint64_t> kept;
    auto reader = *run_blocking(p.log->read({}, "t", {}, {}));
    while (true) {
      auto some = run_blocking(reader->next(Context().with_deadline(Clock::now()), 1UL << 20));
      ASSERT_TRUE(some);
      if (some->empty()) break;
      for (const auto& [record, at] : *some)
        kept.emplace(std::pair(at.parts().at(0).partition, at.parts().at(0).offset), std::stoull(record.body.str()));
    }
    std::set<std::uint64_t> finished;
    for (const Line& l : lines) {
      if (l.what == 'p') {
        const auto it = kept.find({l.partition, l.offset});
        ASSERT_TRUE(it != kept.end()) << "lost: " << l.number;
        EXPECT_EQ(it->second, l.number);
      } else {
        finished.insert(l.number);
      }
    }
    // The rest, and nothing of what was settled, comes to the next owner.
    auto c = *run_blocking(p.log->join(soon(), group()));
    std::set<std::uint64_t> rest;
    for (std::uint64_t left = 1; left != 0;) {
      auto got = run_blocking(c->receive(Context().with_timeout(std::chrono::milliseconds(50)), 1000, 1UL << 20));
      ASSERT_TRUE(got);
      for (const auto& d : *got) {
        const auto number = std::stoull(d.record.body.str());
        EXPECT_FALSE(finished.contains(number)) << "delivered after its acknowledgement: " << number;
        rest.insert(number);
        EXPECT_EQ(ack(*c, d), Settled::ok);
      }
      left = 0;
      for (const auto& f : *run_blocking(p.log->floors(soon(), "t", "g"))) left += f.end - f.acked_below;
    }
    EXPECT_GE(rest.size() + finished.size() + 20, kept.size());  // 20: settled, but killed before it was written down
    run_blocking(c->close({}));
  }
}

}  // namespace
}  // namespace prism::sqlite

namespace prism {
INSTANTIATE_TEST_SUITE_P(Sqlite, EventLogSuite,
                         ::testing::Values(EventLogParam{"sqlite", [] { return std::make_unique<sqlite::Bed>(); }}),
                         [](const auto& info) { return info.param.name; });
}  // namespace prism

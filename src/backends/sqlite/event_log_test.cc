#include "backends/sqlite/event_log.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "backends/sqlite/ack_set.h"
#include "backends/sqlite/delivery_window.h"
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

}  // namespace
}  // namespace prism::sqlite

namespace prism {
INSTANTIATE_TEST_SUITE_P(Sqlite, EventLogSuite,
                         ::testing::Values(EventLogParam{"sqlite", [] { return std::make_unique<sqlite::Bed>(); }}),
                         [](const auto& info) { return info.param.name; });
}  // namespace prism

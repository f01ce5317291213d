// The conformance suite of EventLog on Kafka.
#include "backends/kafka/world_for_test.h"
#include "capabilities/testing/event_log_suite.h"

namespace prism::kafka {
namespace {

class Bed final : public EventLogBed {
 public:
  Bed() { open(); }
  ~Bed() override { shut(); }
  EventLog& log() override { return *one_->log; }
  EventLog& other() override { return *two_->log; }
  EventLog& dying() override {
    if (!dying_) {
      Options options = world_.options;
      options.heartbeat = std::chrono::minutes(30);  // librdkafka counts microseconds in 31 bits
      options.rejoins = false;
      dying_ = std::make_unique<TestLog>(world_.runtime, options);
    }
    return *dying_->log;
  }
  void restart() override {
    shut();
    open();
  }
  void recreate() override {
    shut();
    world_.wipe();
    open();
  }

 private:
  void open() {
    one_ = std::make_unique<TestLog>(world_.runtime, world_.options);
    two_ = std::make_unique<TestLog>(world_.runtime, world_.options);
  }
  void shut() {
    dying_.reset();
    two_.reset();
    one_.reset();
  }
  World world_;
  std::unique_ptr<TestLog> one_, two_, dying_;
};

}  // namespace
}  // namespace prism::kafka

namespace prism {
INSTANTIATE_TEST_SUITE_P(Kafka, EventLogSuite,
                         ::testing::Values(EventLogParam{"kafka", [] { return std::make_unique<kafka::Bed>(); }}));
}  // namespace prism

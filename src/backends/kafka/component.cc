#include "backends/kafka/event_log.h"
#include "backends/kafka/options.h"
#include "capabilities/backend.h"

namespace prism::kafka {
namespace {

class Server final : public Backend {
 public:
  explicit Server(std::shared_ptr<KafkaEventLog> log) : log_(std::move(log)) {}

  std::shared_ptr<EventLog> event_log() override { return log_; }
  Task<Result<void>> check(Context context) override { return log_->check(std::move(context)); }
  std::string describe() const override { return log_->describe(); }
  Task<void> close(Context context) override { return log_->close(std::move(context)); }

 private:
  const std::shared_ptr<KafkaEventLog> log_;
};

Task<Result<std::unique_ptr<Backend>>> connect(Context /*context*/, Runtime& runtime, std::string name,
                                               config::Node node) {
  PRISM_CO_TRY(auto options, options_schema().parse(node));
  if (options.brokers.empty()) options.brokers.emplace_back("localhost:9092");
  PRISM_CO_TRY(auto log, open_event_log(runtime, std::move(name), std::move(options)));
  co_return std::make_unique<Server>(std::move(log));
}

// acks=all: every in-sync replica has the record in its memory. Kafka writes to disk later, in its own time.
Survival survival(const Deployment& deployment) {
  Survival out{.process_kill = Survives::yes,
               .power_loss = Survives::depends,
               .disk_loss = Survives::depends,
               .site_power_loss = Survives::no,
               .why = {}};
  const std::string acks = "acks=all is no fsync: a record is acknowledged when all in-sync replicas have it in memory";
  if (!deployment.replication) {
    out.why = acks + "; what is lost with one broker depends on the topic's replication, which the file does not give";
  } else if (*deployment.replication == 1) {
    out.power_loss = Survives::no;
    out.disk_loss = Survives::no;
    out.why = acks + ", and with replication 1 there is one";
  } else {
    out.why = acks + "; with replication " + std::to_string(*deployment.replication) +
              " another broker has it too, as long as the topic's min.insync.replicas is 2 or more";
  }
  return out;
}

}  // namespace

std::vector<BackendType> backend_types() {
  return {{
      .name = "kafka",
      .aliases = {"redpanda"},
      .capabilities = {"event-log"},
      .summary = "Apache Kafka",
      .log =
          LogLimits{
              .max_record_bytes = 1'048'588, .retention = std::chrono::hours(168), .setting = "message.max.bytes"},
      .validate = options_schema().validator(),
      .options = options_schema().shared_info(),
      .connect = connect,
      .embed = nullptr,
      .survival = survival,
  }};
}

}  // namespace prism::kafka

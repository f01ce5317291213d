// EventLog on Apache Kafka; what stands where is told in README.md.
#pragma once

#include <memory>
#include <string>

#include "backends/kafka/options.h"
#include "capabilities/event_log.h"
#include "runtime/loop.h"

namespace prism::kafka {

class KafkaEventLog : public EventLog {
 public:
  // Asks a broker; why it does not answer.
  virtual Task<Result<void>> check(Context context) = 0;
  virtual std::string describe() const = 0;
};

// No broker needs to be there. Errors: options that librdkafka does not take, files of certificates that cannot be
// read.
Result<std::shared_ptr<KafkaEventLog>> open_event_log(Runtime& runtime, std::string backend, Options options);

}  // namespace prism::kafka

#include "patterns/outbox/guarantees.h"

#include "config/units.h"
#include "patterns/outbox/options.h"

namespace prism::outbox {

void shape(const Shaping& by, Guarantees& guarantees) {
  config::Diagnostics validated_before;
  const Options options = read_options(by.options, validated_before);
  const std::string step(by.step);
  by.also_stored_in(options.database, "the row in table " + options.table + ", until it is relayed", guarantees);
  guarantees.acknowledged = "the message is a committed row in " + options.database + "; it reaches the log afterwards";
  guarantees.delivery.because.push_back(
      {step, "a committed row is published whatever crashes, and perhaps twice: a repeat carries the same message id"});
  guarantees.order.because.push_back(
      {step, "rows of one ordering key are relayed one after the other, lowest id first; other keys side by side"});
  reshape(guarantees.atomicity, by, Atomicity::call,
          "the messages of one Publish or PublishBatch are published all or none, but for those that are refused by "
          "themselves (too large, say)",
          "they are the rows of one transaction; a stream is committed piece by piece");
  reshape(guarantees.freshness, by, Freshness::eventually,
          "a consumer sees a message shortly after it was acknowledged",
          "the relay is woken by the commit and looks every " + config::format_duration(options.interval) +
              "; while the log is down, messages wait in the table");
  guarantees.limits.push_back({step,
                               "a publish through the API is a transaction of its own: it is not atomic with rows that "
                               "the application writes"});
}

std::vector<PlannedJob> jobs(const config::Node& options) {
  config::Diagnostics validated_before;
  const Options read = read_options(options, validated_before);
  std::vector<PlannedJob> out = {{"outbox/relay", "publishes committed rows to the log"}};
  if (read.retention) {
    out.push_back(
        {"outbox/cleanup", "removes rows " + config::format_duration(*read.retention) + " after they were published"});
  }
  return out;
}

}  // namespace prism::outbox

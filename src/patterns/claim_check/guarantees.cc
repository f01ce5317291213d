#include "patterns/claim_check/guarantees.h"

#include "config/units.h"
#include "patterns/claim_check/options.h"

namespace prism::claim_check {

void shape(const Shaping& by, Guarantees& guarantees) {
  config::Diagnostics validated_before;
  const Options options = read_options(by.options, validated_before);
  const std::string step(by.step);
  const std::string large = "payloads larger than " + config::format_size(options.threshold);
  by.also_stored_in(options.backend, large, guarantees);
  guarantees.acknowledged += "; before that, a payload larger than " + config::format_size(options.threshold) +
                             " is stored in " + options.backend;
  guarantees.atomicity.because.push_back(
      {step, "a message that refers to a payload is published only when that is stored, checksummed and durable"});
  std::string until;
  if (options.on_consume) until = "until every consumer group has acknowledged it";
  if (options.expiry) {
    until += (until.empty() ? "for " : ", at most ") + config::format_duration(*options.expiry) + " after its upload";
  }
  if (until.empty()) until = "for ever";
  guarantees.delivery.because.push_back({step, "a stored payload is kept " + until});
  if (options.expiry) {
    guarantees.limits.push_back({step, "a large message that is read later than " +
                                           config::format_duration(*options.expiry) +
                                           " after its publish has lost its payload, and says so"});
  }
  if (options.on_consume) {
    guarantees.limits.push_back(
        {step, "a large message cannot be read again by a group that begins after all others have acknowledged it"});
  }
}

std::vector<PlannedJob> jobs(const config::Node& options) {
  config::Diagnostics validated_before;
  const Options read = read_options(options, validated_before);
  std::vector<PlannedJob> out;
  if (read.on_consume) {
    out.push_back({"claim-check/cleaner", "deletes payloads that every consumer group has acknowledged"});
  }
  out.push_back({"claim-check/sweeper", read.expiry ? "deletes payloads " + config::format_duration(*read.expiry) +
                                                          " after their upload, and those that nothing refers to"
                                                    : std::string("deletes payloads that nothing refers to")});
  return out;
}

}  // namespace prism::claim_check

// The end of every message chain: messages become records of an EventLog, and back.
//
// What a record looks like: the application's payload is the record's body, untouched, and its metadata are headers;
// what Prism adds are headers "prism-*" (attribute claim_check_id is header prism-claim-check-id) and W3C's
// traceparent and tracestate. A checked-in payload leaves a small JSON object with the reference as the body, so that
// any reader of the log understands it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>

#include "capabilities/traced.h"
#include "patterns/assembly.h"
#include "patterns/pattern.h"

namespace prism {

inline constexpr std::string_view kReservedPrefix = "prism-";

// "claim_check_id" <-> "prism-claim-check-id"
std::string header_of_attribute(std::string_view attribute);
std::optional<std::string> attribute_of_header(std::string_view header);

// What a record of this log can hold as a payload, beside its id, key and headers.
std::size_t max_payload_bytes(const LogFeatures& features);

// Records carry the trace of their message: the one that it came with, else that of the request; it goes on below the
// span `<engine>.produce`.
std::unique_ptr<Publisher> make_log_publisher(std::shared_ptr<EventLog> log, std::shared_ptr<Topics> topics,
                                              Engine engine = {.system = "log", .backend = "log", .twin = {}});
std::unique_ptr<Subscriber> make_log_subscriber(std::shared_ptr<EventLog> log, std::shared_ptr<Topics> topics,
                                                std::vector<std::string> declared_groups);

// W3C's headers, which are attributes of the same names on a message.
inline bool is_trace_header(std::string_view name) noexcept { return name == "traceparent" || name == "tracestate"; }
// The trace that a message came with; none: nobody traces it, or the header is not valid.
std::optional<TraceContext> trace_of(const Message& message);
// Sets or replaces it; a context that is not valid changes nothing.
void set_trace(Message& message, const TraceContext& trace);
void drop_trace(Message& message);  // the request's own goes on

// What the message takes of TopicInfo::max_record_bytes, an inline payload of `body` bytes included.
std::size_t record_bytes(const Message& message, std::size_t body);

// Keeps the rule "a failed entry fails the later ones of its key" through one batch.
class FailedKeys {
 public:
  // The error for an entry of this key if an earlier one has failed.
  std::optional<Error> check(const std::string& key) const;
  void add(const std::string& key) {
    if (!key.empty()) keys_.insert(key);
  }

 private:
  std::unordered_set<std::string> keys_;
};

}  // namespace prism

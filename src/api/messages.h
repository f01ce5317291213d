// Messages between the wire and the chain: validation, conversion, positions as text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "api/call_metrics.h"
#include "api/context.h"
#include "api/router.h"
#include "patterns/pattern.h"
#include "prism/pubsub/v1/pubsub.pb.h"
#include "telemetry/trace.h"

namespace prism::api {

inline constexpr std::size_t kMaxUnaryBytes = 4UL << 20;      // payloads of one gRPC message to the server
inline constexpr std::size_t kMaxBatch = 10'000;              // messages in one request or frame, tokens in one frame
inline constexpr std::size_t kMaxMetadataBytes = 64UL << 10;  // names and values together
inline constexpr std::size_t kMaxOrderingKeyBytes = 1024;
inline constexpr std::size_t kMaxMessageIdBytes = 128;
inline constexpr std::size_t kMaxTopicBytes = 249;
inline constexpr std::size_t kMaxNameBytes = 200;  // group, client id

// Which service was called. The same handlers serve both.
enum class Family : std::uint8_t { pubsub, queue };

// WRONG_API: the namespace serves another API; the hint names the service to call.
Result<void> check_api(const Route& route, Family called);

// Positions on the wire: base64url of Position::encode(). POSITION_INVALID.
std::string position_text(const Position& position);
Result<Position> parse_position(std::string_view text);

// POSITION_INVALID, START_INVALID, TIME_INVALID.
Result<Start> to_start(const pubsub::v1::Start& start);

// A duration within its range, or the default where it is not set. DURATION_INVALID naming the field.
Result<Clock::duration> to_duration(const google::protobuf::Duration* duration, Clock::duration fallback,
                                    Clock::duration least, Clock::duration most, std::string_view field);

// Takes the parts of a request apart: moves its strings, or, with `frame`, refers to them and keeps the frame alive.
// The payload is left to the caller. METADATA_RESERVED, METADATA_TOO_LARGE, METADATA_INVALID, MESSAGE_ID_INVALID,
// ORDERING_KEY_TOO_LONG, FIELD_NOT_AVAILABLE.
Result<Message> to_message(pubsub::v1::PublishRequest& request, std::string topic,
                           const std::shared_ptr<const void>& frame);
Result<Message> to_message(pubsub::v1::PayloadHeader& header, std::string topic);
Bytes take_payload(pubsub::v1::PublishRequest& request, const std::shared_ptr<const void>& frame);

void to_proto(const Appended& appended, std::string id, pubsub::v1::PublishResponse* out);

// Everything of a delivery but payload, part and error. Event is pubsub's Event or queue's Message.
template <class Event>
void to_event(const Received& received, const std::string& topic, Event* out);

// Messages on their way to one or several chains, with a result for each in their order.
class PublishSet {
 public:
  // Resolves and checks one message. What is wrong with it becomes its result, and the result of the later messages of
  // its ordering key (EARLIER_MESSAGE_FAILED).
  void add(const Router& router, const RequestContext& request, Family called, pubsub::v1::PublishRequest& message,
           const std::shared_ptr<const void>& frame);
  void append(PublishSet&& later);
  std::size_t size() const noexcept { return entries_.size(); }
  std::size_t bytes() const noexcept { return bytes_; }  // of payloads
  // The topic of all messages, if a publish of them may overlap another one to the same topic (see Route); else empty.
  std::string ordered_topic() const;

  // What a span says of them, with links to the traces that messages came with.
  void describe(trace::Span& span) const;

  struct Outcome {
    std::string id;
    Result<Appended> result;
  };
  // Once. As many outcomes as messages were added; counts them for their namespaces. The set must stay where it is
  // until the task has ended.
  Task<std::vector<Outcome>> publish(Context context, MeasuredCall* call);

 private:
  struct Group {
    Route route;
    bool one_topic = true;
    Batch<Message> messages;
    std::vector<std::uint32_t> entries;
  };
  struct Entry {
    std::string id;
    std::size_t bytes = 0;  // of the payload
    std::unique_ptr<Error> refused;
  };
  Group& group_of(Route route);

  std::vector<Entry> entries_;
  std::vector<Group> groups_;
  std::size_t bytes_ = 0;
  // The last message's name and where it goes: most messages of a stream have the same.
  std::string last_name_;
  Route last_route_;
  std::unordered_set<std::string> failed_keys_;
};

}  // namespace prism::api

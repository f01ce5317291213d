#include "api/messages.h"

#include <algorithm>
#include <limits>
#include <ranges>
#include <utility>

#include "api/errors.h"
#include "api/spans.h"
#include "base/ids.h"
#include "base/text.h"
#include "patterns/log_ports.h"
#include "prism/queue/v1/queue.pb.h"

namespace prism::api {
namespace {

constexpr std::string_view kContentType = "content-type";

Error invalid(std::string reason, std::string message, std::string field, std::string hint = {}) {
  return {Code::invalid_argument,       std::move(reason), std::move(message), std::move(hint), Retry::never, {},
          {{"field", std::move(field)}}};
}

bool reserved(std::string_view name) {
  constexpr std::string_view prefix = "prism-";
  return name.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), name.begin(), [](char a, char b) {
           return a == (b >= 'A' && b <= 'Z' ? b - 'A' + 'a' : b);
         });
}

// The parts that a PublishRequest and a PayloadHeader have in common.
template <class Request>
Result<Message> common_parts(Request& request, std::string topic, const std::shared_ptr<const void>& frame) {
  if (request.has_deliver_at()) return fail(field_not_available("deliver_at"));
  if (request.has_ttl()) return fail(field_not_available("ttl"));
  const std::string& id = request.message_id();
  if (id.size() > kMaxMessageIdBytes || !std::ranges::all_of(id, [](char c) { return c > ' ' && c <= '~'; })) {
    return fail(invalid("MESSAGE_ID_INVALID", "a message id has at most 128 bytes of printable ASCII without spaces",
                        "message_id"));
  }
  if (request.ordering_key().size() > kMaxOrderingKeyBytes) {
    return fail(invalid(
        "ORDERING_KEY_TOO_LONG",
        "the ordering key has " + std::to_string(request.ordering_key().size()) + " bytes; at most 1024 are allowed",
        "ordering_key"));
  }
  std::size_t bytes = request.content_type().size();
  for (const auto& [name, value] : request.metadata()) {
    if (name.empty()) return fail(invalid("METADATA_INVALID", "a metadata key is empty", "metadata"));
    if (reserved(name)) {
      return fail(invalid("METADATA_RESERVED",
                          "the metadata key '" + shown(name) + "' begins with 'prism-', which is reserved", "metadata",
                          "choose another name"));
    }
    bytes += name.size() + value.size();
  }
  if (bytes > kMaxMetadataBytes) {
    return fail(invalid("METADATA_TOO_LARGE",
                        "the metadata have " + std::to_string(bytes) + " bytes; at most 65536 are allowed", "metadata",
                        "put large data into the payload"));
  }
  const auto take = [&](std::string* text) { return frame ? Bytes(frame, *text) : Bytes(std::move(*text)); };
  Message out;
  out.topic = std::move(topic);
  out.id = id.empty() ? uuid7() : std::move(*request.mutable_message_id());
  out.key = std::move(*request.mutable_ordering_key());
  out.headers.reserve(request.metadata().size() + 1);
  // The first header of that name is the content type; one among the metadata arrives as metadata too.
  if (!request.content_type().empty()) {
    out.headers.emplace_back(kContentType, take(request.mutable_content_type()));
  } else if (const auto found = request.metadata().find(std::string(kContentType)); found != request.metadata().end()) {
    out.headers.emplace_back(kContentType, Bytes::copy(found->second));
  }
  for (auto& [name, value] : *request.mutable_metadata()) {
    if (is_trace_header(name)) continue;
    out.headers.emplace_back(name, take(&value));
  }
  if (const auto trace = trace_of(request.metadata())) set_trace(out, *trace);
  return out;
}

// proto3 strings must be UTF-8, but a header that another program wrote need not be: each byte that belongs to no
// sequence becomes U+FFFD.
std::string utf8(std::string_view text) {
  if (std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; })) return std::string(text);
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t n = utf8_sequence(text);
    out += n == 0 ? std::string_view("\xEF\xBF\xBD") : text.substr(0, n);
    text.remove_prefix(std::max<std::size_t>(n, 1));
  }
  return out;
}

constexpr char kBase64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

std::string_view service_of(std::string_view api) {
  if (api == "pubsub") return "prism.pubsub.v1.PubSubService";
  if (api == "queue") return "prism.queue.v1.QueueService";
  if (api == "keyvalue") return "prism.keyvalue.v1.KeyValueService";
  return "the service of that API";
}

}  // namespace

Result<void> check_api(const Route& route, Family called) {
  const bool serves = called == Family::queue ? route.serves_queue : route.serves_pubsub;
  if (serves && route.publisher != nullptr && route.subscriber != nullptr) return {};
  Error error{Code::failed_precondition,
              "WRONG_API",
              "namespace '" + route.namespace_name + "' serves the API '" + std::string(route.api) + "', not '" +
                  (called == Family::queue ? "queue" : "pubsub") + "'",
              "call " + std::string(service_of(route.api)),
              Retry::never,
              {},
              {{"namespace", route.namespace_name}, {"client_api", std::string(route.api)}}};
  return fail(std::move(error));
}

std::string position_text(const Position& position) {
  const std::string raw = position.encode();
  std::string out;
  out.reserve((raw.size() * 4 + 2) / 3);
  unsigned bits = 0;
  int have = 0;
  for (const char c : raw) {
    bits = bits << 8 | static_cast<unsigned char>(c);
    have += 8;
    for (; have >= 6; have -= 6) out += kBase64[bits >> (have - 6) & 63];
  }
  if (have > 0) out += kBase64[bits << (6 - have) & 63];
  return out;
}

Result<Position> parse_position(std::string_view text) {
  const auto bad = [] {
    return fail(Code::invalid_argument, "POSITION_INVALID", "this is no position that a server has given",
                "use Event.position or PublishResponse.position as they are");
  };
  std::string raw;
  raw.reserve(text.size() * 3 / 4);
  unsigned bits = 0;
  int have = 0;
  for (const char c : text) {
    const char* const found = std::ranges::find(kBase64, kBase64 + 64, c);
    if (found == kBase64 + 64) return bad();
    bits = bits << 6 | static_cast<unsigned>(found - kBase64);
    have += 6;
    if (have >= 8) {
      have -= 8;
      raw += static_cast<char>(bits >> have & 255);
    }
  }
  auto position = Position::decode(raw);
  if (!position) return bad();
  return position;
}

Result<Start> to_start(const pubsub::v1::Start& start) {
  switch (start.at_case()) {
    case pubsub::v1::Start::kEdge:
      if (start.edge() == pubsub::v1::Start::EDGE_LATEST) return Start{Latest{}};
      if (!pubsub::v1::Start::Edge_IsValid(start.edge())) {
        return fail(invalid("START_INVALID", "there is no edge " + std::to_string(start.edge()), "start.edge",
                            "EDGE_EARLIEST or EDGE_LATEST"));
      }
      return Start{};
    case pubsub::v1::Start::kPosition: {
      PRISM_TRY(auto position, parse_position(start.position()));
      return Start{std::move(position)};
    }
    case pubsub::v1::Start::kTime: {
      const auto& time = start.time();
      // The range of google.protobuf.Timestamp: years 1 to 9999.
      if (time.seconds() < -62'135'596'800 || time.seconds() > 253'402'300'799 || time.nanos() < 0 ||
          time.nanos() > 999'999'999) {
        return fail(invalid("TIME_INVALID", "the time is out of the range of years 1 to 9999", "start.time"));
      }
      return Start{WallTime(std::chrono::microseconds(time.seconds() * 1'000'000 + time.nanos() / 1000))};
    }
    case pubsub::v1::Start::AT_NOT_SET:
      return Start{};
  }
  return Start{};
}

Result<Clock::duration> to_duration(const google::protobuf::Duration* duration, Clock::duration fallback,
                                    Clock::duration least, Clock::duration most, std::string_view field) {
  if (duration == nullptr) return fallback;
  constexpr std::int64_t day = 86'400;  // keeps the product below from overflowing; every range here is shorter
  const std::int64_t seconds = std::clamp<std::int64_t>(duration->seconds(), -day, day);
  const Clock::duration out = std::chrono::nanoseconds(seconds * 1'000'000'000 + duration->nanos());
  const bool well_formed =  // as google.protobuf.Duration says: both parts have one sign
      std::abs(std::int64_t{duration->nanos()}) < 1'000'000'000 &&
      !(duration->seconds() > 0 && duration->nanos() < 0) && !(duration->seconds() < 0 && duration->nanos() > 0);
  if (!well_formed || out < least || out > most) {
    const auto text = [](Clock::duration d) {
      return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(d).count()) + " s";
    };
    return fail(invalid("DURATION_INVALID",
                        "`" + std::string(field) + "` must be between " + text(least) + " and " + text(most),
                        std::string(field)));
  }
  return out;
}

Result<Message> to_message(pubsub::v1::PublishRequest& request, std::string topic,
                           const std::shared_ptr<const void>& frame) {
  return common_parts(request, std::move(topic), frame);
}

Result<Message> to_message(pubsub::v1::PayloadHeader& header, std::string topic) {
  return common_parts(header, std::move(topic), nullptr);
}

Bytes take_payload(pubsub::v1::PublishRequest& request, const std::shared_ptr<const void>& frame) {
  if (frame) return Bytes(frame, request.payload());
  return Bytes(std::move(*request.mutable_payload()));
}

void to_proto(const Appended& appended, std::string id, pubsub::v1::PublishResponse* out) {
  out->set_success(true);
  out->set_id(std::move(id));
  if (!appended.at.empty()) out->set_position(position_text(appended.at));
  out->set_duplicate(appended.duplicate);
  switch (appended.durability) {
    case Durability::memory:
      out->set_durability(common::v1::DURABILITY_MEMORY);
      break;
    case Durability::os:
      out->set_durability(common::v1::DURABILITY_OS);
      break;
    case Durability::fsync:
      out->set_durability(common::v1::DURABILITY_FSYNC);
      break;
    case Durability::replicated:
      out->set_durability(common::v1::DURABILITY_REPLICATED);
      break;
  }
}

template <class Event>
void to_event(const Received& received, const std::string& topic, Event* out) {
  const Message& message = received.message;
  out->set_id(utf8(message.id));
  out->set_topic(topic);
  bool typed = false;
  for (const auto& [name, value] : message.headers) {
    if (!typed && name == kContentType) {
      out->set_content_type(utf8(value.view()));
      typed = true;
    } else if (!reserved(name)) {
      (*out->mutable_metadata())[utf8(name)] = utf8(value.view());
    }
  }
  for (const auto& [name, value] : message.attributes) {
    if (is_trace_header(name)) (*out->mutable_metadata())[name] = utf8(value);
  }
  if (!received.at.empty()) out->set_position(position_text(received.at));
  const auto micros = received.time.time_since_epoch().count();
  if (micros != 0) {
    auto* const time = out->mutable_publish_time();
    time->set_seconds(micros / 1'000'000);
    time->set_nanos(static_cast<int>(micros % 1'000'000 * 1000));
  }
  out->set_attempt(received.attempt);
  if (!message.key.empty()) out->set_ordering_key(utf8(message.key));
}
template void to_event(const Received&, const std::string&, pubsub::v1::Event*);
template void to_event(const Received&, const std::string&, queue::v1::Message*);

PublishSet::Group& PublishSet::group_of(Route route) {
  for (auto& group : groups_ | std::views::reverse) {
    if (group.route.publisher == route.publisher) {
      group.one_topic = group.one_topic && group.route.topic == route.topic;
      return group;
    }
    // The namespace was replaced in between: what comes now must not overtake what came then.
    if (group.route.namespace_name == route.namespace_name) break;
  }
  return groups_.emplace_back(Group{std::move(route), true, {}, {}});
}

void PublishSet::add(const Router& router, const RequestContext& request, Family called,
                     pubsub::v1::PublishRequest& message, const std::shared_ptr<const void>& frame) {
  const auto index = static_cast<std::uint32_t>(entries_.size());
  Entry& entry = entries_.emplace_back();
  const auto failed_key = [&] { return last_name_ + '\0' + message.ordering_key(); };
  const auto refuse = [&](Error error) {
    if (!message.ordering_key().empty()) failed_keys_.insert(failed_key());
    entry.refused = std::make_unique<Error>(std::move(error));
  };
  if (last_route_.publisher == nullptr || last_name_ != message.topic()) {
    last_name_ = message.topic();
    last_route_ = {};
    auto route = router.resolve(request.bound, last_name_);
    if (!route) return refuse(std::move(route).error());
    if (auto serves = check_api(*route, called); !serves) return refuse(std::move(serves).error());
    last_route_ = std::move(*route);
  }
  if (!failed_keys_.empty() && !message.ordering_key().empty() && failed_keys_.contains(failed_key())) {
    return refuse({Code::aborted,
                   "EARLIER_MESSAGE_FAILED",
                   "an earlier message of the same ordering key failed in this batch",
                   "repeat both, in order",
                   Retry::safe,
                   {},
                   {}});
  }
  const std::size_t size = message.payload().size();
  auto converted = to_message(message, last_route_.topic, frame);
  if (!converted) return refuse(std::move(converted).error());
  converted->payload = Payload(take_payload(message, frame));
  bytes_ += size;
  entry.bytes = size;
  entry.id = converted->id;
  Group& group = group_of(last_route_);
  group.messages.push_back(std::move(*converted));
  group.entries.push_back(index);
}

void PublishSet::append(PublishSet&& later) {
  const auto offset = static_cast<std::uint32_t>(entries_.size());
  entries_.insert(entries_.end(), std::make_move_iterator(later.entries_.begin()),
                  std::make_move_iterator(later.entries_.end()));
  for (auto& from : later.groups_) {
    Group& into = group_of(std::move(from.route));
    into.one_topic = into.one_topic && from.one_topic;
    into.messages.insert(into.messages.end(), std::make_move_iterator(from.messages.begin()),
                         std::make_move_iterator(from.messages.end()));
    for (const auto entry : from.entries) into.entries.push_back(offset + entry);
  }
  bytes_ += later.bytes_;
}

std::string PublishSet::ordered_topic() const {
  if (groups_.size() != 1 || !groups_.front().one_topic || !groups_.front().route.keeps_call_order) return {};
  return groups_.front().route.topic;
}

void PublishSet::describe(trace::Span& span) const {
  if (!span) return;
  span.set("messaging.batch.message_count", entries_.size());
  if (groups_.size() == 1) {
    api::describe(span, groups_.front().route);
  }
  std::size_t links = 0;
  for (const auto& group : groups_) {
    for (const auto& message : group.messages) {
      if (links >= kMaxLinks) return;
      if (const auto trace = prism::trace_of(message)) {
        span.link(*trace);
        ++links;
      }
    }
  }
}

Task<std::vector<PublishSet::Outcome>> PublishSet::publish(Context context, MeasuredCall* call) {
  std::vector<Outcome> out;
  out.reserve(entries_.size());
  if (last_route_.publisher != nullptr) call->in(last_route_.namespace_name);
  for (auto& entry : entries_) {
    if (entry.refused) {
      call->refused(entry.refused->reason);
      out.push_back({std::move(entry.id), fail(std::move(*entry.refused))});
    } else {
      out.push_back({std::move(entry.id), Appended{}});
    }
  }
  last_route_ = {};
  for (auto& group : groups_) {
    NamespaceCalls& counted = call->in(group.route.namespace_name);
    auto results =
        co_await group.route.publisher->publish(enter_publish(context, group.route), std::move(group.messages));
    std::size_t published = 0, bytes = 0;
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (results[i]) {
        ++published;
        bytes += entries_[group.entries[i]].bytes;
      } else {
        counted.refused(call->method(), results[i].error().reason);
      }
      out[group.entries[i]].result = std::move(results[i]);
    }
    counted.published(call->method(), published, bytes);
    group.route = {};  // a change of the configuration may wait for it, and the next group for the change
  }
  co_return out;
}

}  // namespace prism::api

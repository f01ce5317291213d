#include "patterns/log_ports.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
namespace prism {
namespace {

// Room for the id, the key, the headers and the record's own encoding beside a payload.
constexpr std::size_t kRecordOverhead = 1024;

bool is_checked_in(const Message& message) { return message.attribute("claim_check_id") != nullptr; }

// The lightweight message of RFC-009 and RFC-014: the reference, its size, and the publisher's metadata beside them.
std::string reference_body(const Message& message) {
  nlohmann::ordered_json body;
  for (const auto& [name, value] : message.headers) body[name] = value.view();
  body["claim_check_id"] = *message.attribute("claim_check_id");
  if (const auto* uri = message.attribute("claim_check_uri")) body["claim_check_uri"] = *uri;
  if (const auto* size = message.attribute("payload_size")) body["size"] = std::strtoull(size->c_str(), nullptr, 10);
  return body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

class LogPublisher final : public Publisher {
 public:
  LogPublisher(std::shared_ptr<EventLog> log, std::shared_ptr<Topics> topics)
      : log_(std::move(log)), topics_(std::move(topics)) {}

  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    Batch<Result<Appended>> results;
    results.reserve(messages.size());
    FailedKeys failed;
    for (std::size_t from = 0; from < messages.size();) {
      // Runs of one topic; nearly always the whole batch.
      std::size_t to = from + 1;
      while (to < messages.size() && messages[to].topic == messages[from].topic) ++to;
      co_await publish_run(context, messages, from, to, failed, results);
      from = to;
    }
    co_return results;
  }

 private:
  // NOLINTNEXTLINE(cppcoreguidelines-avoid-reference-coroutine-parameters): awaited at once by publish, which owns
  // them.
  Task<void> publish_run(Context context, Batch<Message>& messages, std::size_t from, std::size_t to,
                         FailedKeys& failed, Batch<Result<Appended>>& results) {
    const std::string topic = messages[from].topic;
    auto info = co_await topics_->ensure(context, topic);
    if (!info) {
      for (std::size_t i = from; i < to; ++i) {
        failed.add(messages[i].key);
        results.emplace_back(std::unexpected(info.error()));
      }
      co_return;
    }
    Batch<Record> records;
    records.reserve(to - from);
    std::vector<std::size_t> index;  // results that wait for the append
    std::vector<std::string> keys;   // of the records
    const Bytes traceparent = context.trace().valid() ? Bytes(context.trace().traceparent()) : Bytes();
    for (std::size_t i = from; i < to; ++i) {
      Message& message = messages[i];
      if (auto error = failed.check(message.key)) {
        results.emplace_back(std::unexpected(std::move(*error)));
        continue;
      }
      Record record;
      if (is_checked_in(message)) {
        record.body = Bytes(reference_body(message));
      } else if (message.payload.is_inline() &&
                 message.payload.buffered().size() + kRecordOverhead <= info->max_record_bytes) {
        record.body = message.payload.buffered();
      } else {
        const std::size_t limit = info->max_record_bytes - std::min(info->max_record_bytes, kRecordOverhead);
        auto body = co_await message.payload.collect(context, limit);
        if (!body) {
          Error error = std::move(body).error();
          if (error.reason == "PAYLOAD_TOO_LARGE")
            error.hint = "add the claim-check pattern to the namespace: it takes payloads of any size";
          failed.add(message.key);
          results.emplace_back(std::unexpected(std::move(error)));
          continue;
        }
        record.body = std::move(*body);
      }
      record.id = std::move(message.id);
      keys.push_back(message.key);
      record.key = std::move(message.key);
      record.headers = std::move(message.headers);
      bool traced = false;
      for (const auto& [name, value] : message.attributes) {
        traced = traced || name == "traceparent";
        record.headers.emplace_back(name == "traceparent" ? name : header_of_attribute(name), Bytes(value));
      }
      if (!traced && !traceparent.empty()) record.headers.emplace_back("traceparent", traceparent);
      records.push_back(std::move(record));
      index.push_back(results.size());
      results.emplace_back();
    }
    if (records.empty()) co_return;
    auto appended = co_await log_->append(context, topic, std::move(records));
    for (std::size_t i = 0; i < index.size(); ++i) {
      if (!appended[i]) failed.add(keys[i]);
      results[index[i]] = std::move(appended[i]);
    }
  }

  std::shared_ptr<EventLog> log_;
  std::shared_ptr<Topics> topics_;
};

class LogSubscription final : public Subscription {
 public:
  LogSubscription(std::unique_ptr<GroupConsumer> consumer, std::string topic)
      : consumer_(std::move(consumer)), topic_(std::move(topic)) {}

  Task<Result<Batch<Received>>> receive(Context context, std::size_t max, std::size_t max_bytes) override {
    PRISM_CO_TRY(auto deliveries, co_await consumer_->receive(std::move(context), max, max_bytes));
    Batch<Received> out;
    out.reserve(deliveries.size());
    for (auto& delivery : deliveries) {
      Received received;
      received.token = std::move(delivery.token);
      received.at = std::move(delivery.at);
      received.attempt = delivery.attempt;
      received.time = delivery.record.time;
      Message& message = received.message;
      message.topic = topic_;
      message.id = std::move(delivery.record.id);
      message.key = std::move(delivery.record.key);
      message.payload = Payload(std::move(delivery.record.body));
      message.headers.reserve(delivery.record.headers.size());
      for (auto& [name, value] : delivery.record.headers) {
        if (name == "traceparent") {
          message.attributes.emplace_back(std::move(name), value.str());
        } else if (auto attribute = attribute_of_header(name)) {
          message.attributes.emplace_back(std::move(*attribute), value.str());
        } else {
          message.headers.emplace_back(std::move(name), std::move(value));
        }
      }
      out.push_back(std::move(received));
    }
    co_return out;
  }
  Task<Batch<Settled>> settle(Context context, Batch<Settle> settles) override {
    return consumer_->settle(std::move(context), std::move(settles));
  }
  Task<void> close(Context context) override { return consumer_->close(std::move(context)); }

 private:
  std::unique_ptr<GroupConsumer> consumer_;
  std::string topic_;
};

class LogSubscriber final : public Subscriber {
 public:
  LogSubscriber(std::shared_ptr<EventLog> log, std::shared_ptr<Topics> topics, std::vector<std::string> declared)
      : log_(std::move(log)), topics_(std::move(topics)), declared_(std::move(declared)) {}

  Task<Result<std::unique_ptr<Subscription>>> subscribe(Context context, GroupSpec spec) override {
    if (!declared_.empty() && std::find(declared_.begin(), declared_.end(), spec.group) == declared_.end()) {
      std::string names;
      for (const auto& name : declared_) names += (names.empty() ? "" : ", ") + name;
      co_return fail(
          Code::failed_precondition, "GROUP_NOT_DECLARED",
          "the namespace declares its consumer groups, and \"" + shown(spec.group) + "\" is not one of them (" + names +
              ")",
          "add it under pub_sub.consumer_groups: payloads are kept until every declared group has acknowledged them");
    }
    PRISM_CO_CHECK(co_await topics_->ensure(context, spec.topic));
    const std::string topic = spec.topic;
    PRISM_CO_TRY(auto consumer, co_await log_->join(std::move(context), std::move(spec)));
    co_return std::make_unique<LogSubscription>(std::move(consumer), topic);
  }

 private:
  std::shared_ptr<EventLog> log_;
  std::shared_ptr<Topics> topics_;
  std::vector<std::string> declared_;
};

}  // namespace

std::string header_of_attribute(std::string_view attribute) {
  std::string header(kReservedPrefix);
  header += attribute;
  std::replace(header.begin(), header.end(), '_', '-');
  return header;
}

std::optional<std::string> attribute_of_header(std::string_view header) {
  if (!header.starts_with(kReservedPrefix)) return std::nullopt;
  std::string attribute(header.substr(kReservedPrefix.size()));
  std::replace(attribute.begin(), attribute.end(), '-', '_');
  return attribute;
}

std::size_t record_bytes(const Message& message, std::size_t body) {
  constexpr std::size_t kEach = 16;          // the encoding of one header
  constexpr std::size_t kTraceparent = 128;  // added on the way to the log
  std::size_t headers = 0;
  for (const auto& [name, value] : message.headers) headers += name.size() + value.size() + kEach;
  std::size_t bytes = message.id.size() + message.key.size() + body + headers + kTraceparent;
  for (const auto& [name, value] : message.attributes)
    bytes += kReservedPrefix.size() + name.size() + value.size() + kEach;
  // The body of a checked-in message repeats its metadata, with JSON's escapes: at most six bytes for one.
  if (is_checked_in(message)) bytes += 6 * headers + kRecordOverhead;
  return bytes;
}

std::optional<Error> FailedKeys::check(const std::string& key) const {
  if (key.empty() || !keys_.contains(key)) return std::nullopt;
  return Error{Code::aborted,
               "EARLIER_MESSAGE_FAILED",
               "an earlier message of ordering key \"" + shown(key) + "\" in this batch failed",
               "publish from the failed one on again, in order",
               Retry::safe,
               {},
               {}};
}

std::size_t max_payload_bytes(const LogFeatures& features) {
  return features.max_record_bytes - std::min(features.max_record_bytes, kRecordOverhead);
}

std::unique_ptr<Publisher> make_log_publisher(std::shared_ptr<EventLog> log, std::shared_ptr<Topics> topics) {
  return std::make_unique<LogPublisher>(std::move(log), std::move(topics));
}
std::unique_ptr<Subscriber> make_log_subscriber(std::shared_ptr<EventLog> log, std::shared_ptr<Topics> topics,
                                                std::vector<std::string> declared) {
  return std::make_unique<LogSubscriber>(std::move(log), std::move(topics), std::move(declared));
}

}  // namespace prism

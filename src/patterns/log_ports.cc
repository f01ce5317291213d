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

// The spans of one append: one for the messages that belong to the request's trace, and one for each that came with a
// trace of its own.
class ProduceSpans {
 public:
  ProduceSpans(const Context& context, const Engine& engine, const std::string& topic)
      : context_(context), engine_(engine), topic_(topic) {}

  // Puts the trace into the record's headers: of its span, else as it came.
  void add(const Message& message, Record& record) {
    const std::size_t at = added_++;
    if (message.attribute("traceparent") != nullptr) {
      const auto trace = trace_of(message);
      if (!trace) return;
      trace::Span span = resume_span(*trace, engine_, "produce", trace::Kind::producer);
      if (!span) return put(*trace, record);
      describe(span);
      span.set("messaging.message.id", record.id);
      span.set("messaging.message.body.size", record.body.size());
      put(span.trace_or(*trace), record);
      own_.emplace_back(at, std::move(span));
      return;
    }
    if (!context_.trace().valid()) return;
    if (of_request_ == 0) {
      shared_ = begin_span(context_, engine_, "produce", trace::Kind::producer);
      describe(shared_);
      headers_of(shared_.trace_or(context_.trace()));
      first_ = at;
      if (shared_) shared_.set("messaging.message.id", record.id);
    }
    ++of_request_;
    record.headers.emplace_back("traceparent", traceparent_);
    if (!tracestate_.empty()) record.headers.emplace_back("tracestate", tracestate_);
  }

  void end(const Batch<Result<Appended>>& appended) {
    for (auto& [at, span] : own_) {
      note(span, appended[at]);
      span.end();
    }
    if (!shared_) return;
    if (of_request_ > 1) shared_.set("messaging.batch.message_count", of_request_);
    for (const auto& result : appended) {
      if (!result) shared_.fail(result.error());
    }
    if (appended[first_]) note(shared_, appended[first_]);
    shared_.end();
  }

 private:
  void describe(trace::Span& span) const {
    span.set("messaging.system", engine_.system);
    span.set("messaging.operation.name", "produce");
    span.set("messaging.operation.type", "send");
    span.set("messaging.destination.name", topic_);
  }
  void note(trace::Span& span, const Result<Appended>& result) const {
    if (!result) return span.fail(result.error());
    if (result->at.parts().empty()) return;
    const auto& part = result->at.parts().front();
    span.set("messaging.destination.partition.id", std::to_string(part.partition));
    span.set(engine_.system == "kafka" ? "messaging.kafka.offset" : "prism.offset", part.offset);
  }
  static void put(const TraceContext& trace, Record& record) {
    record.headers.emplace_back("traceparent", Bytes(trace.traceparent()));
    if (!trace.tracestate.empty()) record.headers.emplace_back("tracestate", Bytes(std::string(trace.tracestate)));
  }
  void headers_of(const TraceContext& trace) {
    traceparent_ = Bytes(trace.traceparent());
    tracestate_ = Bytes(std::string(trace.tracestate));
  }

  const Context& context_;
  const Engine& engine_;
  const std::string& topic_;
  std::size_t added_ = 0;
  std::size_t of_request_ = 0;  // messages without a trace of their own
  std::size_t first_ = 0;       // the first of them
  trace::Span shared_;
  Bytes traceparent_, tracestate_;
  std::vector<std::pair<std::size_t, trace::Span>> own_;
};

class LogPublisher final : public Publisher {
 public:
  LogPublisher(std::shared_ptr<EventLog> log, std::shared_ptr<Topics> topics, Engine engine)
      : log_(std::move(log)), topics_(std::move(topics)), engine_(std::move(engine)) {}

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
  // NOLINTBEGIN(cppcoreguidelines-avoid-reference-coroutine-parameters): awaited at once by publish, their owner
  Task<void> publish_run(Context context, Batch<Message>& messages, std::size_t from, std::size_t to,
                         FailedKeys& failed, Batch<Result<Appended>>& results) {
    // NOLINTEND(cppcoreguidelines-avoid-reference-coroutine-parameters)
    const std::string topic = messages[from].topic;
    auto info = co_await topics_->ensure(context, topic);
    if (!info) {
      // Whether or not the topic was made: nothing was published.
      if (info.error().retry == Retry::unknown_outcome) info.error().retry = Retry::safe;
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
    ProduceSpans spans(context, engine_, topic);
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
      spans.add(message, record);
      for (const auto& [name, value] : message.attributes) {
        if (!is_trace_header(name)) record.headers.emplace_back(header_of_attribute(name), Bytes(value));
      }
      records.push_back(std::move(record));
      index.push_back(results.size());
      results.emplace_back();
    }
    if (records.empty()) co_return;
    auto appended = co_await log_->append(context, topic, std::move(records));
    spans.end(appended);
    for (std::size_t i = 0; i < index.size(); ++i) {
      if (!appended[i]) failed.add(keys[i]);
      results[index[i]] = std::move(appended[i]);
    }
  }

  std::shared_ptr<EventLog> log_;
  std::shared_ptr<Topics> topics_;
  const Engine engine_;
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
      bool traced = false;
      for (auto& [name, value] : delivery.record.headers) {
        if (is_trace_header(name)) {
          message.attributes.emplace_back(std::move(name), value.str());
          traced = true;
        } else if (auto attribute = attribute_of_header(name)) {
          message.attributes.emplace_back(std::move(*attribute), value.str());
        } else {
          message.headers.emplace_back(std::move(name), std::move(value));
        }
      }
      if (traced && !trace_of(message)) drop_trace(message);  // another program's, and not valid
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
  constexpr std::size_t kEach = 16;                                   // the encoding of one header
  constexpr std::size_t kTrace = 128 + TraceContext::kMaxStateBytes;  // added on the way to the log
  std::size_t headers = 0;
  for (const auto& [name, value] : message.headers) headers += name.size() + value.size() + kEach;
  std::size_t bytes = message.id.size() + message.key.size() + body + headers + kTrace;
  for (const auto& [name, value] : message.attributes)
    bytes += kReservedPrefix.size() + name.size() + value.size() + kEach;
  // The body of a checked-in message repeats its metadata, with JSON's escapes: at most six bytes for one.
  if (is_checked_in(message)) bytes += 6 * headers + kRecordOverhead;
  return bytes;
}

std::optional<TraceContext> trace_of(const Message& message) {
  const std::string* const parent = message.attribute("traceparent");
  if (parent == nullptr) return std::nullopt;
  const std::string* const state = message.attribute("tracestate");
  return TraceContext::parse(*parent, state != nullptr ? std::string_view(*state) : std::string_view());
}

void set_trace(Message& message, const TraceContext& trace) {
  if (!trace.valid()) return;
  message.set_attribute("traceparent", trace.traceparent());
  if (!trace.tracestate.empty() || message.attribute("tracestate") != nullptr)
    message.set_attribute("tracestate", trace.tracestate);
}

void drop_trace(Message& message) {
  std::erase_if(message.attributes, [](const auto& attribute) { return is_trace_header(attribute.first); });
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

std::unique_ptr<Publisher> make_log_publisher(std::shared_ptr<EventLog> log, std::shared_ptr<Topics> topics,
                                              Engine engine) {
  return std::make_unique<LogPublisher>(std::move(log), std::move(topics), std::move(engine));
}
std::unique_ptr<Subscriber> make_log_subscriber(std::shared_ptr<EventLog> log, std::shared_ptr<Topics> topics,
                                                std::vector<std::string> declared) {
  return std::make_unique<LogSubscriber>(std::move(log), std::move(topics), std::move(declared));
}

}  // namespace prism

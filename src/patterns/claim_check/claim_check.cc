#include "patterns/claim_check/claim_check.h"

#include <algorithm>
#include <charconv>

#include "base/crc32c.h"
#include "base/ids.h"
#include "base/text.h"
#include "patterns/claim_check/cleanup.h"
#include "patterns/claim_check/guarantees.h"
#include "patterns/log_ports.h"
#include "patterns/traced.h"
#include "telemetry/log.h"

namespace prism::claim_check {

const PatternInfo kInfo{
    .name = "claim-check",
    .version = "1.0.0",
    .summary = "stores large payloads in an object store and sends a reference",
    .apis = {"pubsub", "queue", "transact"},
    .backends = {{.option = "storage.backend", .any_of = {"object-store"}, .standard = "s3"},
                 {.option = "", .any_of = {"event-log"}, .standard = ""}},
    .gives = {"payloads of any size", "records on the log of less than 1 KB",
              "stored payloads are deleted when they are consumed or expire"},
    .conflicts = {{"event-sourcing",
                   "stored payloads are deleted in time, while an event store keeps every event for ever"}},
    .rank = 10,
    .before = {"tiered-storage"},
    .shape = shape,
    .jobs = jobs,
};

namespace {

// Uploads of one batch that run side by side; each holds its parts under the process-wide byte budget.
constexpr std::size_t kUploadsAtOnce = 4;
// For what follows a finished upload: it must not be cut off by a caller that goes away, or the object becomes an
// orphan.
constexpr Clock::duration kCommitGrace = std::chrono::seconds(30);

constexpr std::string_view kProcessPublish = "process_publish";
constexpr std::string_view kProcessConsume = "process_consume";

std::uint64_t to_number(const std::string* text) {
  std::uint64_t value = 0;
  if (text != nullptr) std::from_chars(text->data(), text->data() + text->size(), value);
  return value;
}

std::string content_type_of(const Message& message) {
  for (const auto& [name, value] : message.headers) {
    if (name == "content-type") return value.str();
  }
  return {};
}

class ClaimCheckPublisher final : public Publisher {
 public:
  ClaimCheckPublisher(std::unique_ptr<Publisher> next, std::shared_ptr<ObjectStore> store, Options options,
                      std::shared_ptr<Counted> counted)
      : next_(std::move(next)), store_(std::move(store)), options_(std::move(options)), counted_(std::move(counted)) {}

  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    // The common case costs one look at each size.
    if (std::all_of(messages.begin(), messages.end(), [&](const Message& m) { return stays_inline(m); })) {
      begin_pattern_span(context, kInfo.name, kProcessPublish).set("prism.claim_check.stored", 0);
      return next_->publish(std::move(context), std::move(messages));
    }
    return check_in(std::move(context), std::move(messages));
  }

 private:
  bool stays_inline(const Message& m) const {
    return m.attribute("claim_check_id") != nullptr ||
           (m.payload.is_inline() && m.payload.buffered().size() <= options_.threshold);
  }

  struct Upload {
    std::size_t index = 0;
    std::string key;
    std::uint64_t bytes = 0;
    WallTime stored{};  // when the object became visible
    Result<void> outcome;
  };

  Task<Batch<Result<Appended>>> check_in(Context context, Batch<Message> messages) {
    std::vector<std::string> uploaded(messages.size());  // object keys
    std::vector<std::uint64_t> bytes(messages.size());
    std::vector<std::optional<Error>> errors(messages.size());
    std::vector<WallTime> stored(messages.size(), WallTime::max());
    trace::Span span = begin_pattern_span(context, kInfo.name, kProcessPublish);
    const Context inside = span.context(context);
    for (std::size_t i = 0; i < messages.size();) {
      std::vector<Task<Upload>> uploads;
      for (; i < messages.size() && uploads.size() < kUploadsAtOnce; ++i) {
        if (!stays_inline(messages[i])) uploads.push_back(upload(inside, &messages[i], i));
      }
      for (auto& done : co_await when_all(std::move(uploads))) {
        if (done.outcome) {
          if (!done.key.empty()) stored[done.index] = done.stored;
          bytes[done.index] = done.bytes;
          uploaded[done.index] = std::move(done.key);
        } else {
          span.fail(done.outcome.error());
          errors[done.index] = std::move(done.outcome).error().with("pattern", std::string(kInfo.name));
        }
      }
    }
    span.set("prism.claim_check.stored",
             std::ranges::count_if(uploaded, [](const std::string& key) { return !key.empty(); }));
    span.end();

    // The sweeper takes an object of orphan_age that nothing refers to: what refers to it must be committed well
    // before. Counted in wall time, since a stopped process ages too.
    const WallTime now = wall_now();
    const auto usable = std::chrono::duration_cast<std::chrono::microseconds>(options_.orphan_age / 2);
    Clock::duration left = kCommitGrace;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (stored[i] == WallTime::max()) continue;
      if (now - stored[i] >= usable) {
        errors[i] = Error{Code::aborted,
                          "UPLOAD_TOO_OLD",
                          "the payload was stored too long ago for its message to be committed now",
                          "publish again; raise cleanup.orphan_age if publishes take that long",
                          Retry::safe,
                          {},
                          {{"pattern", std::string(kInfo.name)}}};
      } else {
        left = std::min<Clock::duration>(left, usable - (now - stored[i]));
      }
    }

    Batch<Message> rest;
    std::vector<std::size_t> index;
    FailedKeys failed;
    std::vector<std::string> garbage;
    std::vector<std::uint64_t> garbage_bytes;
    const auto discard = [&](std::size_t i) {
      if (uploaded[i].empty()) return;
      garbage.push_back(uploaded[i]);
      garbage_bytes.push_back(bytes[i]);
    };
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (!errors[i]) errors[i] = failed.check(messages[i].key);
      if (errors[i]) {
        failed.add(messages[i].key);
        discard(i);
        continue;
      }
      rest.push_back(std::move(messages[i]));
      index.push_back(i);
    }
    Batch<Result<Appended>> results(messages.size());
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (errors[i]) results[i] = std::unexpected(std::move(*errors[i]));
    }
    if (!rest.empty()) {
      auto published = co_await next_->publish(context.shielded(left), std::move(rest));
      for (std::size_t i = 0; i < index.size(); ++i) {
        // An unknown outcome may be a success: then the object stays for the sweeper to judge.
        if (!published[i] && published[i].error().retry != Retry::unknown_outcome) discard(index[i]);
        results[index[i]] = std::move(published[i]);
      }
    }
    if (!garbage.empty()) {
      const auto removed = co_await store_->remove(context.shielded(kCommitGrace), garbage);
      for (std::size_t i = 0; i < removed.size(); ++i) {
        if (!removed[i]) continue;
        counted_->cleaned->add();
        counted_->held->removed(garbage[i], garbage_bytes[i]);
      }
    }
    co_return results;
  }

  Task<Upload> upload(Context context, Message* message, std::size_t index) {
    Upload out{.index = index};
    if (!message->payload.is_inline()) {
      // A stream of unknown size may turn out to be small: then it stays inline.
      auto head = co_await message->payload.peek(context, options_.threshold + 1);
      if (!head) {
        out.outcome = std::unexpected(std::move(head).error());
        co_return out;
      }
      if (stays_inline(*message)) co_return out;
    }
    trace::Span generate = trace::Span::begin(context, "generate_claim_check_id", trace::Layer::pattern);
    const std::string id = uuid7();
    const std::string key = options_.prefix + id;
    generate.set("prism.claim_check.id", id);
    generate.end();
    auto stored = co_await store_->put(
        context, key, std::exchange(message->payload, Payload()),
        PutOptions{.if_absent = true, .if_match = {}, .content_type = content_type_of(*message), .metadata = {}});
    if (!stored) {
      // The object may be there: nothing refers to it, and the sweeper takes it. The message is not published.
      if (stored.error().retry == Retry::unknown_outcome) stored.error().retry = Retry::safe;
      out.outcome = std::unexpected(std::move(stored).error());
      co_return out;
    }
    out.key = key;
    out.bytes = stored->size;
    counted_->stored->add();
    counted_->held->stored(key, stored->size);
    out.stored = stored->modified;
    message->set_attribute("claim_check_id", id);
    message->set_attribute("payload_size", std::to_string(stored->size));
    message->set_attribute("claim_check_uri", options_.backend + "://" + options_.bucket + "/" + key);
    message->set_attribute("claim_check_backend", options_.backend);
    message->set_attribute("claim_check_bucket", options_.bucket);
    message->set_attribute("claim_check_key", key);
    message->set_attribute("claim_check_crc32c", std::to_string(stored->crc32c));
    co_return out;
  }

  std::unique_ptr<Publisher> next_;
  std::shared_ptr<ObjectStore> store_;
  Options options_;
  std::shared_ptr<Counted> counted_;
};

// Fetches the object when it is first read.
class ObjectSource final : public ByteSource {
 public:
  struct Reference {
    std::string id;
    std::string uri;
    std::string key;
    std::uint64_t size = 0;
    std::optional<std::uint32_t> crc32c;
    std::string topic;
    bool keyed = false;              // the message
    std::optional<PositionPart> at;  // of the record
  };
  ObjectSource(std::shared_ptr<ObjectStore> store, std::shared_ptr<const Site> site, Reference reference)
      : store_(std::move(store)), site_(std::move(site)), reference_(std::move(reference)) {}

  Task<Result<Bytes>> next(Context context, std::size_t max) override {
    if (!payload_) {
      // Lasts until the payload is read, or not wanted any more.
      span_ = begin_pattern_span(context, kInfo.name, kProcessConsume);
      span_.set("prism.claim_check.id", reference_.id);
    }
    auto piece = co_await read(std::move(context), max);
    if (!piece) span_.fail(piece.error());
    if (!piece || piece->empty()) span_.end();
    co_return piece;
  }

 private:
  Task<Result<Bytes>> read(Context context, std::size_t max) {
    if (!payload_) {
      auto opened = co_await store_->get(span_.context(context), reference_.key, 0, std::nullopt);
      if (!opened) co_return co_await missing(context, std::move(opened).error());
      auto& [info, payload] = *opened;
      if (info.size != reference_.size)
        co_return damaged("has " + std::to_string(info.size) + " bytes instead of " + std::to_string(reference_.size));
      payload_ = std::move(payload);
    }
    auto piece = co_await payload_->next(std::move(context), max);
    if (!piece) {
      auto error = std::move(piece).error();
      if (error.code == Code::data_loss) co_return damaged(error.message);
      co_return std::unexpected(std::move(error));
    }
    crc_ = crc32c(crc_, piece->view());
    if (piece->empty() && reference_.crc32c && *reference_.crc32c != crc_)
      co_return damaged("does not match the checksum of the upload");
    if (piece->empty() && site_->retrieved != nullptr) site_->retrieved->add();
    co_return piece;
  }

  std::unexpected<Error> damaged(const std::string& how) const {
    return fail(Error{Code::data_loss,
                      "PAYLOAD_DAMAGED",
                      "the stored payload " + reference_.uri + " " + how,
                      "restore the object from a backup, or skip the message",
                      Retry::never,
                      {},
                      {{"claim_check_id", reference_.id}}});
  }
  Task<Result<Bytes>> missing(Context context, Error error) {
    if (error.reason != "OBJECT_NOT_FOUND") co_return std::unexpected(std::move(error));
    std::uint64_t cursor = 0;
    bool repeated = false;
    if (const auto& at = reference_.at) {
      PRISM_CO_TRY(
          cursor, co_await read_cursor(context, site_->state,
                                       cursor_key(site_->namespace_name, reference_.topic, at->source, at->partition)));
      if (cursor <= at->offset) {
        PRISM_CO_TRY(repeated, co_await acknowledged_elsewhere(context, *site_, reference_.topic, reference_.id, *at,
                                                               reference_.keyed));
      }
    }
    if (repeated) {
      co_return fail(
          Error{Code::failed_precondition,
                std::string(kMessageRepeated),
                "the payload " + reference_.uri +
                    " was cleaned up after every consumer group had acknowledged the message; this is a repeat of it",
                "nothing is to be done: the message was dealt with",
                Retry::never,
                {},
                {{"claim_check_id", reference_.id}}});
    }
    if (reference_.at && cursor > reference_.at->offset) {
      co_return fail(
          Error{Code::failed_precondition,
                "PAYLOAD_EXPIRED",
                "the payload " + reference_.uri + " was cleaned up after every consumer group had acknowledged it",
                "for replay keep payloads for a time: cleanup: {strategy: retention, ttl: ...}",
                Retry::never,
                {},
                {{"claim_check_id", reference_.id}}});
    }
    co_return fail(Error{Code::data_loss,
                         "PAYLOAD_MISSING",
                         "the stored payload " + reference_.uri + " is gone: it passed its expiry or was deleted",
                         "restore the object from a backup, or skip the message",
                         Retry::never,
                         {},
                         {{"claim_check_id", reference_.id}}});
  }

  std::shared_ptr<ObjectStore> store_;
  std::shared_ptr<const Site> site_;
  Reference reference_;
  std::optional<Payload> payload_;
  std::uint32_t crc_ = 0;
  trace::Span span_;
};

// A payload that cannot even be looked for.
class FailingSource final : public ByteSource {
 public:
  explicit FailingSource(Error error) : error_(std::move(error)) {}
  Task<Result<Bytes>> next(Context /*context*/, std::size_t /*max*/) override { co_return std::unexpected(error_); }

 private:
  Error error_;
};

class DecodingSubscription final : public Subscription {
 public:
  DecodingSubscription(std::unique_ptr<Subscription> next, Assembly::FindObjectStore find,
                       std::shared_ptr<const Site> site)
      : next_(std::move(next)), find_(std::move(find)), site_(std::move(site)) {}

  Task<Result<Batch<Received>>> receive(Context context, std::size_t max, std::size_t max_bytes) override {
    auto batch = co_await next_->receive(std::move(context), max, max_bytes);
    if (!batch) co_return batch;
    for (auto& received : *batch) {
      if (received.message.attribute("claim_check_id") != nullptr) decode(received);
    }
    co_return batch;
  }
  Task<Batch<Settled>> settle(Context context, Batch<Settle> settles) override {
    return next_->settle(std::move(context), std::move(settles));
  }
  Task<void> close(Context context) override { return next_->close(std::move(context)); }

 private:
  void decode(Received& received) const {
    Message& message = received.message;
    const auto text = [&](std::string_view name) {
      const auto* value = message.attribute(name);
      return value != nullptr ? *value : std::string();
    };
    ObjectSource::Reference reference{.id = text("claim_check_id"),
                                      .uri = text("claim_check_uri"),
                                      .key = text("claim_check_key"),
                                      .size = to_number(message.attribute("payload_size")),
                                      .crc32c = {},
                                      .topic = message.topic,
                                      .keyed = !message.key.empty(),
                                      .at = {}};
    if (const auto* crc = message.attribute("claim_check_crc32c"))
      reference.crc32c = static_cast<std::uint32_t>(to_number(crc));
    if (!received.at.parts().empty()) reference.at = received.at.parts().front();
    const auto size = reference.size;
    auto store = find_(text("claim_check_backend"), text("claim_check_bucket"));
    if (!store) {
      message.payload = Payload(std::make_unique<FailingSource>(std::move(store).error()), size);
      return;
    }
    message.payload = Payload(std::make_unique<ObjectSource>(std::move(*store), site_, std::move(reference)), size);
  }

  std::unique_ptr<Subscription> next_;
  Assembly::FindObjectStore find_;
  std::shared_ptr<const Site> site_;
};

class Decoder final : public Subscriber {
 public:
  Decoder(std::unique_ptr<Subscriber> next, Assembly::FindObjectStore find, Site site)
      : next_(std::move(next)), find_(std::move(find)), site_(std::make_shared<const Site>(std::move(site))) {}
  Task<Result<std::unique_ptr<Subscription>>> subscribe(Context context, GroupSpec spec) override {
    PRISM_CO_TRY(auto below, co_await next_->subscribe(std::move(context), std::move(spec)));
    co_return std::make_unique<DecodingSubscription>(std::move(below), find_, site_);
  }

 private:
  std::unique_ptr<Subscriber> next_;
  Assembly::FindObjectStore find_;
  std::shared_ptr<const Site> site_;
};

constexpr std::size_t kListedAtOnce = 1000;

class ClaimCheck final : public Pattern {
 public:
  explicit ClaimCheck(Options options) : options_(std::move(options)) {}
  const PatternInfo& info() const noexcept override { return kInfo; }

  Task<Result<bool>> settled(Context context) override {
    if (!options_.on_consume) co_return true;
    co_return co_await caught_up(std::move(context), *site_);
  }

  Task<Result<Unfinished>> unfinished(Context context) override {
    PRISM_CO_TRY(const auto page, co_await site_->store->list(std::move(context), options_.prefix, "", kListedAtOnce));
    const std::size_t n = page.size();
    if (n == 0) co_return Unfinished();
    co_return Unfinished{n, std::string(n == kListedAtOnce ? "at least " : "") + counted(n, "stored payload") + " in " +
                                options_.backend + "://" + options_.bucket + "/" + options_.prefix +
                                " that it would never delete"};
  }

  Task<Result<void>> measure(Context context) override {
    return site_->counted->held->count(std::move(context), site_->store, options_.prefix);
  }

  Task<Result<Facts>> inspect(Context context) override {
    std::uint64_t count = 0, bytes = 0;
    ObjectInfo newest;  // keys sort by time of creation
    for (bool more = true; more;) {
      PRISM_CO_TRY(auto page, co_await site_->store->list(context, options_.prefix, newest.key, kListedAtOnce));
      more = page.size() == kListedAtOnce;
      count += page.size();
      for (const auto& object : page) bytes += object.size;
      if (!page.empty()) newest = std::move(page.back());
    }
    co_return Facts{{"backend", options_.backend},
                    {"bucket", options_.bucket},
                    {"prefix", options_.prefix},
                    {"objects", std::to_string(count)},
                    {"bytes", std::to_string(bytes)},
                    {"newest_object", newest.key},
                    {"newest_object_bytes", std::to_string(newest.size)}};
  }

  Task<Result<Ports>> wrap(Context context, Ports below, Assembly& assembly) override {
    if (options_.bucket.empty()) options_.bucket = "prism-" + assembly.namespace_name();
    PRISM_CO_CHECK(assembly.reserve_objects(options_.backend, options_.bucket, options_.prefix));
    PRISM_CO_TRY(auto store, co_await assembly.object_store(context, options_.backend, options_.bucket));
    site_ = Site{.namespace_name = assembly.namespace_name(),
                 .options = options_,
                 .log = assembly.log(),
                 .store = store,
                 .state = assembly.state(),
                 .topics = assembly.topics(),
                 .pending = assembly.pending_references(),
                 .groups = assembly.consumer_groups(),
                 .counted = std::make_shared<Counted>(assembly.pattern_metrics())};
    PRISM_CO_CHECK(
        co_await known_since(context, assembly.state(), assembly.namespace_name()));  // before the first upload
    if (options_.on_consume) assembly.add(std::make_shared<Cleaner>(*site_));
    assembly.add(std::make_shared<Sweeper>(*site_));
    below.publish = make_publisher(std::move(below.publish), std::move(store), options_, site_->counted);
    co_return below;
  }

 private:
  Options options_;
  std::optional<Site> site_;  // set by wrap
};

}  // namespace

std::unique_ptr<Publisher> make_publisher(std::unique_ptr<Publisher> next, std::shared_ptr<ObjectStore> store,
                                          Options options, std::shared_ptr<Counted> counted) {
  return std::make_unique<ClaimCheckPublisher>(std::move(next), std::move(store), std::move(options),
                                               std::move(counted));
}
std::unique_ptr<Subscriber> make_decoder(std::unique_ptr<Subscriber> next, Assembly::FindObjectStore find, Site site) {
  return std::make_unique<Decoder>(std::move(next), std::move(find), std::move(site));
}
std::unique_ptr<Pattern> make_pattern(Options options) { return std::make_unique<ClaimCheck>(std::move(options)); }

PatternType pattern_type() {
  return {
      .info = kInfo,
      .validate = [](const config::Node& options,
                     config::Diagnostics& diagnostics) { (void)read_options(options, diagnostics); },
      .options = options_info(),
      .review = review_options,
      .holdings = holdings,
      .make =
          [](const config::Node& options) {
            config::Diagnostics validated_before;
            return make_pattern(read_options(options, validated_before));
          },
      .decode =
          [](std::unique_ptr<Subscriber> next, Assembly& assembly) {
            return make_decoder(std::move(next), assembly.object_stores(),
                                Site{.namespace_name = assembly.namespace_name(),
                                     .options = {},
                                     .log = assembly.log(),
                                     .store = {},
                                     .state = assembly.state(),
                                     .topics = assembly.topics(),
                                     .pending = {},
                                     .groups = assembly.consumer_groups(),
                                     .retrieved = std::make_shared<Retrieved>(assembly.pattern_metrics())});
          },
  };
}

}  // namespace prism::claim_check

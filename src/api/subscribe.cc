#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "api/errors.h"
#include "api/messaging.h"
#include "base/crc32c.h"
#include "telemetry/log.h"

namespace prism::api {
namespace {

using pubsub::v1::SubscribeRequest;
using pubsub::v1::SubscribeStreamRequest;
using pubsub::v1::SubscribeStreamResponse;
using Settled1 = SubscribeStreamResponse::Settled;

constexpr auto kReceiveWait = std::chrono::seconds(30);  // one receive; then the stream looks around and receives again
constexpr auto kCloseGrace = std::chrono::seconds(10);   // settle and close are not cut by the client's going away
constexpr std::size_t kReceiveBytes = 1UL << 20;         // of inline payloads in memory at once for one stream
constexpr auto kDefaultAckDeadline = std::chrono::seconds(30);
constexpr auto kReplacedGrace = std::chrono::seconds(30);  // for what is out when a namespace is replaced

Error invalid(std::string reason, std::string message, std::string hint = {}) {
  return {Code::invalid_argument, std::move(reason), std::move(message), std::move(hint), Retry::never, {}, {}};
}

template <class Open>  // SubscribeRequest or SubscribeStreamRequest::Open
Result<GroupSpec> to_group(const Open& open, std::string topic) {
  GroupSpec spec;
  spec.topic = std::move(topic);
  spec.group = open.group().empty() ? "default" : open.group();
  if (spec.group.size() > kMaxNameBytes || open.client_id().size() > kMaxNameBytes) {
    return fail(invalid("NAME_TOO_LONG", "group and client_id have at most 200 bytes each"));
  }
  PRISM_TRY(spec.start, to_start(open.start()));
  spec.client = open.client_id();
  spec.ack_deadline = kDefaultAckDeadline;
  return spec;
}

// One event, or one part of one, on its way out.
//
// Writes the event's frames: `next_frame()` gives the message for the next one (null: the client is gone), `sent()`
// hands it on.
struct EventBytes {
  std::optional<std::uint64_t> total;
  std::uint64_t offset = 0;
  std::uint32_t crc = 0;
};

template <class Event>
void set_part(Event* event, const EventBytes& at, std::size_t n, bool last) {
  auto* const part = event->mutable_part();
  part->set_offset(at.offset - n);
  part->set_last(last);
  if (at.offset == n && at.total) part->set_total_size(*at.total);
  if (last) part->set_crc32c(at.crc);
}

template <class Event>
void set_error(Event* event, const Error& error) {
  event->clear_payload();
  to_proto(error, event->mutable_error());
}

// Whoever looks after the payloads should know; what the client's going away has done says nothing.
void log_undelivered(const Context& context, const Received& received, const Error& error) {
  if (context.stopped()) return;
  log::warn(context, "a payload cannot be delivered",
            {{"topic", received.message.topic},
             {"message_id", received.message.id},
             {"reason", error.reason},
             {"error", error.message},
             {"attempt", received.attempt}});
}

// Was the message dealt with by every group, and its payload cleaned up? Said before the first byte.
bool is_repeat(const Error& error) { return error.reason == kMessageRepeated; }

// Is it small enough for one frame, and there in one piece?
bool at_hand(const Payload& payload) { return payload.is_inline() && payload.buffered().size() <= kMaxEventBytes; }

}  // namespace

// --- simple ---

namespace {

template <class Event>
class SimpleSubscriber {
 public:
  SimpleSubscriber(ServerStream<Event>* call, const Serving* serving) : call_(call), serving_(serving) {}

  Task<grpc::Status> run(Family family, const SubscribeRequest* request) {
    auto context = request_context(call_->context(), call_->stop(), serving_->sessions);
    if (!context) co_return to_status(context.error());
    const TraceContext caller = caller_of(*context);
    begin_request(*context, call_->measured().method(), std::nullopt, call_->trace());
    auto route = serving_->router.resolve_to_subscribe(context->bound, request->topic());
    if (!route) co_return to_status(route.error());
    replaced_ = route->replaced;
    call_->measured().in(route->namespace_name);
    describe(call_->trace(), *route);
    if (auto serves = check_api(*route, family); !serves) co_return to_status(serves.error());
    auto spec = to_group(*request, route->topic);
    if (!spec) co_return to_status(spec.error());
    topic_ = request->topic();
    deliveries_ = Deliveries(caller, call_->measured().method(), topic_, spec->group, route->trace_patterns);
    context_ = enter(context->context, *route);
    auto subscribed = co_await route->subscriber->subscribe(context_, std::move(*spec));
    if (!subscribed) co_return to_status(subscribed.error());
    subscription_ = std::move(*subscribed);
    // What comes belongs to the traces of the messages.
    call_->trace().span.end();
    context_ = context_.with_trace({});
    const Error end = co_await deliver();
    co_await subscription_->close(context_.shielded(kCloseGrace));
    co_return to_status(end);
  }

 private:
  // Until the client goes, the server goes down, or the subscription fails.
  Task<Error> deliver() {
    std::stop_source receiving;
    const std::stop_callback on_cancel(call_->stop(), [&receiving] { receiving.request_stop(); });
    const std::stop_callback on_drain(serving_->calls.draining.get_token(), [&receiving] { receiving.request_stop(); });
    const std::stop_callback on_replaced(replaced_, [&receiving] { receiving.request_stop(); });
    const Context receive = context_.with_stop(receiving.get_token());
    while (true) {
      if (call_->cancelled() || context_.stopped()) co_return context_.over(false);
      if (receiving.stop_requested())
        co_return serving_->calls.draining.stop_requested() ? shutting_down() : namespace_replaced();
      auto batch = co_await subscription_->receive(receive.with_timeout(kReceiveWait), kFrameEvents, kReceiveBytes);
      if (!batch) {
        if (receiving.stop_requested() || batch.error().code == Code::deadline_exceeded) continue;
        co_return std::move(batch).error();
      }
      Batch<Settle> settles;
      std::vector<trace::Span> spans;  // of the settles
      for (auto& received : *batch) {
        trace::Span span = deliveries_.deliver(received);
        auto settle = co_await send(std::move(received), span);
        if (!settle) break;
        if (span) spans.push_back(deliveries_.settle(span.trace_or({}), settle->what));
        settles.push_back(std::move(*settle));
      }
      // What was not written goes to another member of the group when the subscription is closed.
      if (!settles.empty()) co_await subscription_->settle(context_.shielded(kCloseGrace), std::move(settles));
    }
  }

  // None: the client is gone.
  // NOLINTNEXTLINE(cppcoreguidelines-avoid-reference-coroutine-parameters): awaited at once; the sender owns it.
  Task<std::optional<Settle>> send(Received received, trace::Span& span) {
    const Context context = span.context(context_);
    Settle settle{std::move(received.token), Settle::Do::ack, {}, {}};
    Event event;
    to_event(received, topic_, &event);
    Payload payload = std::move(received.message.payload);
    std::size_t bytes = 0;
    if (at_hand(payload) || (payload.size() && *payload.size() <= kMaxEventBytes)) {
      auto whole = co_await payload.collect(context, kMaxEventBytes);
      if (!whole) span.fail(whole.error());
      if (!whole && is_repeat(whole.error())) co_return settle;
      if (whole) {
        event.set_payload(whole->data(), whole->size());
        bytes = whole->size();
      } else {
        log_undelivered(context, received, whole.error());
        note(whole.error(), event, settle);
      }
      if (!co_await call_->write(event)) co_return std::nullopt;
    } else {
      EventBytes at{payload.size()};
      auto extended = Clock::now();
      for (bool last = false; !last;) {
        // One piece is read ahead to know which one is the last; the source gives an empty one at the end.
        auto piece = co_await payload.next(context, kPartBytes);
        if (!piece) span.fail(piece.error());
        if (!piece && is_repeat(piece.error())) co_return settle;
        if (!piece) {
          log_undelivered(context, received, piece.error());
          note(piece.error(), event, settle);
          last = true;
          if (at.offset > 0) set_part(&event, at, 0, true);
        } else {
          at.offset += piece->size();
          at.crc = crc32c(at.crc, piece->view());
          last = piece->empty() || (at.total && at.offset >= *at.total);
          event.set_payload(piece->data(), piece->size());
          set_part(&event, at, piece->size(), last);
        }
        if (!co_await call_->write(event)) co_return std::nullopt;
        std::string id = std::move(*event.mutable_id());
        event.Clear();
        event.set_id(std::move(id));
        if (Clock::now() - extended > kDefaultAckDeadline / 3) {
          extended = Clock::now();
          co_await subscription_->settle(context_.shielded(kCloseGrace),
                                         Batch<Settle>{{settle.token, Settle::Do::extend, kDefaultAckDeadline, {}}});
        }
      }
      bytes = at.offset;
    }
    call_->measured().delivered(1, bytes);
    co_return settle;
  }

  static void note(const Error& error, Event& event, Settle& settle) {
    set_error(&event, error);
    // Acknowledged is only what nothing brings back. A store that is away, or lets nobody in until an operator has done
    // something, still has the payload.
    if (error.code != Code::data_loss && error.reason != "PAYLOAD_EXPIRED") {
      settle.what = Settle::Do::nack;
      settle.delay = std::chrono::seconds(1);
      settle.reason = error.reason;
    }
  }

  ServerStream<Event>* call_;
  const Serving* serving_;
  Context context_;
  std::string topic_;
  Deliveries deliveries_;
  std::stop_token replaced_;
  std::unique_ptr<Subscription> subscription_;
};

}  // namespace

template <class Event>
Task<grpc::Status> subscribe(ServerStream<Event>* call, const Serving* serving, Family family,
                             const SubscribeRequest* request) {
  SimpleSubscriber<Event> subscriber(call, serving);
  co_return co_await subscriber.run(family, request);
}
template Task<grpc::Status> subscribe(ServerStream<pubsub::v1::Event>*, const Serving*, Family,
                                      const SubscribeRequest*);
template Task<grpc::Status> subscribe(ServerStream<queue::v1::Message>*, const Serving*, Family,
                                      const SubscribeRequest*);

// --- bidirectional ---

namespace {

// What has been sent and not been settled, against the client's credit. Thread-safe.
class Credit {
 public:
  Credit(std::size_t messages, std::size_t bytes, Clock::duration deadline)
      : max_messages_(messages), max_bytes_(bytes), deadline_(deadline) {}

  struct Room {
    std::size_t messages;
    std::size_t bytes;             // at least 1 where nothing is out: one event is always allowed
    Clock::duration until_expiry;  // when the next event's deadline passes, if nothing else happens
  };
  Room room() {
    const std::lock_guard lock(mutex_);
    if (full()) expire();
    Room room{max_messages_ - std::min(max_messages_, out_.size()), max_bytes_ - std::min(max_bytes_, bytes_),
              std::chrono::seconds(10)};
    if (out_.empty()) room.bytes = std::max<std::size_t>(room.bytes, 1);
    if (!out_.empty())
      room.until_expiry =
          std::clamp<Clock::duration>(next_expiry_ - Clock::now(), std::chrono::milliseconds(1), room.until_expiry);
    return room;
  }
  bool fits(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (full() || bytes_ + bytes > max_bytes_) expire();
    return out_.empty() || (out_.size() < max_messages_ && bytes_ + bytes <= max_bytes_);
  }
  void sent(const std::string& token, std::size_t bytes, const trace::Span& span) {
    const std::lock_guard lock(mutex_);
    const auto expires = Clock::now() + deadline_;
    next_expiry_ = out_.empty() ? expires : std::min(next_expiry_, expires);
    auto trace = span ? std::make_unique<const TraceContext>(span.trace_or({})) : nullptr;
    if (trace != nullptr) traced_ = true;
    if (out_.emplace(token, Out{bytes, expires, std::move(trace)}).second) bytes_ += bytes;
  }
  // The trace of a delivery that is out; none: it is not recorded.
  std::optional<TraceContext> trace_of(const std::string& token) {
    const std::lock_guard lock(mutex_);
    const auto found = out_.find(token);
    if (found == out_.end() || found->second.trace == nullptr) return std::nullopt;
    return *found->second.trace;
  }
  bool traced() const noexcept { return traced_; }  // has any delivery been recorded?
  // The deadline counts from the last part.
  void extended(const std::string& token, Clock::duration by) {
    const std::lock_guard lock(mutex_);
    if (const auto found = out_.find(token); found != out_.end()) found->second.expires = Clock::now() + by;
  }
  void settled(const std::string& token) {
    const std::lock_guard lock(mutex_);
    if (const auto found = out_.find(token); found != out_.end()) {
      bytes_ -= found->second.bytes;
      out_.erase(found);
    }
  }
  void raise(std::size_t messages, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    max_messages_ = std::min(max_messages_ + messages, kMostMessages);
    max_bytes_ = std::min(max_bytes_ + std::min(bytes, kMostBytes), kMostBytes);
  }
  bool nothing_out() {
    const std::lock_guard lock(mutex_);
    if (!out_.empty()) expire();
    return out_.empty();
  }

  static constexpr std::size_t kMostMessages = 100'000;
  static constexpr std::size_t kMostBytes = 1UL << 30;

 private:
  struct Out {
    std::size_t bytes;
    Clock::time_point expires;
    std::unique_ptr<const TraceContext> trace;
  };
  bool full() const { return out_.size() >= max_messages_ || bytes_ >= max_bytes_; }
  // The log gives these to somebody else now.
  void expire() {
    const auto now = Clock::now();
    if (now < next_expiry_) return;
    next_expiry_ = Clock::time_point::max();
    for (auto at = out_.begin(); at != out_.end();) {
      if (at->second.expires <= now) {
        bytes_ -= at->second.bytes;
        at = out_.erase(at);
      } else {
        next_expiry_ = std::min(next_expiry_, at->second.expires);
        ++at;
      }
    }
  }

  std::mutex mutex_;
  std::size_t max_messages_;  // guarded by mutex_, as all below
  std::size_t max_bytes_;
  std::unordered_map<std::string, Out> out_;  // by token
  std::size_t bytes_ = 0;
  Clock::time_point next_expiry_{};  // no event expires before
  std::atomic<bool> traced_{false};
  const Clock::duration deadline_;
};

// Four stages, joined together: the reader takes the client's frames apart, the settler carries out acks, nacks and
// extensions (one call for all that have come meanwhile), the pump receives events as credit allows, and the writer
// sends both stages' frames one after the other. Each stage that sends has its own message, or two in turn, and waits
// until it is free again: a client that does not read stops the pump, one that does not read results stops the settler
// and then the reader.
class StreamSubscriber {
 public:
  StreamSubscriber(SubscribeStreamCall* call, const Serving* serving, Family family)
      : call_(call), serving_(serving), family_(family), loop_(serving->runtime.next_loop()), credit_changed_(loop_) {}

  Task<grpc::Status> run() {
    auto opened = co_await open();
    if (!opened) co_return to_status(opened.error());
    {
      const std::stop_callback on_cancel(call_->stop(), [this] { receiving_.request_stop(); });
      const std::stop_callback on_drain(serving_->calls.draining.get_token(), [this] {
        receiving_.request_stop();
        credit_changed_.notify();  // a goodbye that has begun becomes shorter
      });
      const std::stop_callback on_replaced(route_.replaced, [this] { receiving_.request_stop(); });
      std::vector<Task<bool>> stages;
      stages.push_back(write_stage());
      stages.push_back(settle_stage());
      stages.push_back(read_stage());
      stages.push_back(pump_stage());
      co_await when_all(std::move(stages));
    }
    co_await subscription_->close(context_.shielded(kCloseGrace));
    if (final_) co_return to_status(*final_);
    co_return grpc::Status::OK;
  }

 private:
  // A message to the client, and whether it is under way.
  struct Outgoing {
    SubscribeStreamResponse message;
    Signal free;
    bool busy = false;   // guarded by mutex_
    bool large = false;  // it holds more memory than is worth keeping
  };

  Task<Result<void>> open() {
    auto request = request_context(call_->context(), call_->stop(), serving_->sessions);
    if (!request) co_return fail(std::move(request).error());
    request_ = std::move(*request);
    const TraceContext caller = caller_of(request_);
    begin_request(request_, call_->measured().method(), std::nullopt, call_->trace());
    const std::stop_callback on_drain(serving_->calls.draining.get_token(), [this] { call_->release_read(loop_); });
    auto frame = co_await call_->read();
    if (!frame)
      co_return fail(serving_->calls.draining.stop_requested()
                         ? shutting_down()
                         : invalid("FRAME_OUT_OF_ORDER", "the stream ended without an `open` frame"));
    if (frame->malformed) co_return fail(request_malformed(frame->message->GetTypeName()));
    if (!frame->message->has_open()) co_return fail(invalid("FRAME_OUT_OF_ORDER", "the first frame must be `open`"));
    const auto& open = frame->message->open();
    PRISM_CO_TRY(route_, serving_->router.resolve_to_subscribe(request_.bound, open.topic()));
    call_->measured().in(route_.namespace_name);
    describe(call_->trace(), route_);
    PRISM_CO_CHECK(check_api(route_, family_));
    PRISM_CO_TRY(auto spec, to_group(open, route_.topic));
    PRISM_CO_TRY(ack_deadline_,
                 to_duration(open.has_ack_deadline() ? &open.ack_deadline() : nullptr, kDefaultAckDeadline,
                             std::chrono::seconds(1), std::chrono::hours(12), "ack_deadline"));
    const std::size_t messages = open.max_messages() == 0 ? 1000 : open.max_messages();
    const std::size_t bytes = open.max_bytes() == 0 ? 16UL << 20 : open.max_bytes();
    if (messages > Credit::kMostMessages || bytes > Credit::kMostBytes) {
      co_return fail(invalid("CREDIT_OUT_OF_RANGE", "max_messages is at most 100000 and max_bytes at most 1 GiB"));
    }
    topic_ = open.topic();
    spec.ack_deadline = ack_deadline_;
    spec.max_bytes = Credit::kMostBytes;  // the stream's own credit is the limit, and may be raised
    SubscribeStreamResponse::Opened* const opened = settled_.message.mutable_opened();
    opened->set_group(spec.group);
    opened->set_max_messages(static_cast<std::uint32_t>(messages));
    opened->set_max_bytes(bytes);
    const auto nanos = std::chrono::nanoseconds(ack_deadline_).count();
    opened->mutable_ack_deadline()->set_seconds(nanos / 1'000'000'000);
    opened->mutable_ack_deadline()->set_nanos(static_cast<int>(nanos % 1'000'000'000));
    opened->set_topic(route_.topic);
    deliveries_ = Deliveries(caller, call_->measured().method(), topic_, spec.group, route_.trace_patterns);
    context_ = enter(request_.context, route_);
    credit_.emplace(messages, bytes, ack_deadline_);
    auto subscribed = co_await route_.subscriber->subscribe(context_, std::move(spec));
    if (!subscribed) co_return fail(std::move(subscribed).error());
    subscription_ = std::move(*subscribed);
    // What comes belongs to the traces of the messages.
    call_->trace().span.end();
    context_ = context_.with_trace({});
    post(settled_);
    co_return {};
  }

  // Ends the stream from the server's side with this error; the first one counts.
  void end(Error error) {
    {
      const std::lock_guard lock(mutex_);
      if (!final_) final_ = std::move(error);
    }
    receiving_.request_stop();
    call_->release_read(loop_);
    credit_changed_.notify();
  }

  // --- reader ---
  Task<bool> read_stage() {
    while (auto frame = co_await call_->read()) {
      auto settles = take(*frame);
      if (!settles) {
        end(std::move(settles).error());
        break;
      }
      if (settles->empty()) continue;
      bool full = false;
      {
        const std::lock_guard lock(mutex_);
        to_settle_.insert(to_settle_.end(), std::make_move_iterator(settles->begin()),
                          std::make_move_iterator(settles->end()));
        full = to_settle_.size() > 2 * kMaxBatch;
      }
      to_settle_changed_.set();
      while (full) {
        co_await room_.wait();
        const std::lock_guard lock(mutex_);
        full = to_settle_.size() > 2 * kMaxBatch;
      }
    }
    {
      const std::lock_guard lock(mutex_);
      input_ended_ = true;
    }
    receiving_.request_stop();
    credit_changed_.notify();
    to_settle_changed_.set();
    co_return true;
  }

  // The settles that a frame asks for.
  Result<Batch<Settle>> take(Frame<SubscribeStreamRequest>& read) {
    if (read.malformed) return fail(request_malformed(read.message->GetTypeName()));
    SubscribeStreamRequest& frame = *read.message;
    Batch<Settle> out;
    const auto check = [](int n) -> Result<void> {
      if (n == 0) return fail(invalid("EMPTY_BATCH", "the frame has no tokens"));
      if (static_cast<std::size_t>(n) > kMaxBatch)
        return fail(invalid("BATCH_TOO_LARGE", "a frame has at most 10000 tokens"));
      return {};
    };
    switch (frame.frame_case()) {
      case SubscribeStreamRequest::kAck:
        PRISM_CHECK(check(frame.ack().ack_tokens_size()));
        out.reserve(static_cast<std::size_t>(frame.ack().ack_tokens_size()));
        for (auto& token : *frame.mutable_ack()->mutable_ack_tokens())
          out.push_back({std::move(token), Settle::Do::ack, {}, {}});
        return out;
      case SubscribeStreamRequest::kNack:
        PRISM_CHECK(check(frame.nack().entries_size()));
        for (auto& entry : *frame.mutable_nack()->mutable_entries()) {
          PRISM_TRY(const auto delay, to_duration(entry.has_delay() ? &entry.delay() : nullptr, Clock::duration(0),
                                                  Clock::duration(0), std::chrono::hours(12), "delay"));
          if (entry.reason().size() > 1024)
            return fail(invalid("REASON_TOO_LONG", "a nack's reason has at most 1024 bytes"));
          out.push_back(
              {std::move(*entry.mutable_ack_token()), Settle::Do::nack, delay, std::move(*entry.mutable_reason())});
        }
        return out;
      case SubscribeStreamRequest::kExtend: {
        PRISM_CHECK(check(frame.extend().ack_tokens_size()));
        PRISM_TRY(const auto by, to_duration(frame.extend().has_by() ? &frame.extend().by() : nullptr, ack_deadline_,
                                             std::chrono::seconds(1), std::chrono::hours(12), "by"));
        for (auto& token : *frame.mutable_extend()->mutable_ack_tokens())
          out.push_back({std::move(token), Settle::Do::extend, by, {}});
        return out;
      }
      case SubscribeStreamRequest::kCredit:
        credit_->raise(frame.credit().messages(), frame.credit().bytes());
        credit_changed_.notify();
        return out;
      case SubscribeStreamRequest::kReject:
        return fail(method_not_available("SubscribeStream.reject"));
      case SubscribeStreamRequest::kOpen:
        return fail(invalid("FRAME_OUT_OF_ORDER", "a second `open` came"));
      case SubscribeStreamRequest::FRAME_NOT_SET:
        return fail(invalid("FRAME_OUT_OF_ORDER", "an empty frame came"));
    }
    return out;
  }

  // --- settler ---
  Task<bool> settle_stage() {
    while (true) {
      Batch<Settle> settles;
      bool ended = false;
      {
        const std::lock_guard lock(mutex_);
        settles.swap(to_settle_);
        ended = input_ended_;
      }
      if (settles.empty()) {
        if (ended) break;
        co_await to_settle_changed_.wait();
        continue;
      }
      room_.set();
      struct Asked {
        std::string token;
        Settle::Do what;
        Clock::duration by;
        bool valid;
      };
      std::vector<Asked> asked;
      asked.reserve(settles.size());
      for (const auto& s : settles) asked.push_back({s.token, s.what, s.delay, valid_token(s.token)});
      std::erase_if(settles, [](const Settle& s) { return !valid_token(s.token); });
      Batch<Settled> results;
      std::vector<trace::Span> spans;
      if (credit_->traced()) {
        for (const auto& s : settles) {
          if (s.what == Settle::Do::extend) continue;
          if (const auto of_delivery = credit_->trace_of(s.token))
            spans.push_back(deliveries_.settle(*of_delivery, s.what));
        }
      }
      if (!settles.empty())
        results = co_await subscription_->settle(context_.shielded(kCloseGrace), std::move(settles));
      spans.clear();  // they end
      co_await free(settled_);
      settled_.message.Clear();
      auto& out = *settled_.message.mutable_settled()->mutable_results();
      out.Reserve(static_cast<int>(asked.size()));
      auto result = results.begin();
      for (auto& a : asked) {
        auto* const entry = out.Add();
        if (!a.valid) {
          entry->set_status(Settled1::STATUS_INVALID);
        } else {
          entry->set_status(status_of(*result));
          if (a.what != Settle::Do::extend) {
            credit_->settled(a.token);
          } else if (*result == Settled::ok) {
            credit_->extended(a.token, a.by);
          }
          ++result;
        }
        entry->set_ack_token(std::move(a.token));
      }
      settled_.large = asked.size() > kFrameEvents;
      post(settled_);
      credit_changed_.notify();
    }
    producer_ended();
    co_return true;
  }

  static bool valid_token(const std::string& token) { return !token.empty() && token.size() <= 1024; }
  static Settled1::Status status_of(Settled settled) {
    switch (settled) {
      case Settled::ok:
        return Settled1::STATUS_OK;
      case Settled::stale:
        return Settled1::STATUS_STALE;
      case Settled::unknown:
        return Settled1::STATUS_UNKNOWN;
      case Settled::invalid:
        return Settled1::STATUS_INVALID;
    }
    return Settled1::STATUS_UNKNOWN;
  }

  // --- pump ---
  Task<bool> pump_stage() {
    const Context receive = context_.with_stop(receiving_.get_token());
    while (!receiving_.stop_requested()) {
      const auto seen = credit_changed_.version();
      const auto room = credit_->room();
      if (room.messages == 0 || room.bytes == 0) {
        co_await credit_changed_.wait(receive, seen, room.until_expiry);
        continue;
      }
      auto batch =
          co_await subscription_->receive(receive.with_timeout(kReceiveWait), std::min(room.messages, kFrameEvents),
                                          std::min(room.bytes, kReceiveBytes));
      if (!batch) {
        if (receiving_.stop_requested()) break;
        if (batch.error().code == Code::deadline_exceeded && !context_.stopped()) continue;
        end(std::move(batch).error());
        break;
      }
      if (batch->empty()) {
        if (context_.stopped()) end(context_.over(false));
        release_memory();
        continue;
      }
      if (!co_await send(std::move(*batch))) break;
    }
    const bool told_to_go = draining() || route_.replaced.stop_requested();
    if (told_to_go && !input_ended() && !call_->cancelled()) co_await say_goodbye();
    producer_ended();
    co_return true;
  }

  // False: the stream ends.
  Task<bool> send(Batch<Received> batch) {
    auto extended = Clock::now();
    auto* events = co_await begin_events();
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
      Received& received = batch[i];
      const std::size_t size = static_cast<std::size_t>(received.message.payload.size().value_or(kMaxEventBytes));
      if (!credit_->fits(size)) {
        if (!events->empty()) {
          send_events(bytes);
          events = co_await begin_events();
          bytes = 0;
        }
        if (!co_await wait_for_credit(size, batch, i, extended)) co_return false;
      }
      trace::Span delivery = deliveries_.deliver(received);
      credit_->sent(received.token, size, delivery);
      if (at_hand(received.message.payload)) {
        const Bytes payload = received.message.payload.buffered();
        if (!events->empty() && bytes + payload.size() > kFrameBytes) {
          send_events(bytes);
          events = co_await begin_events();
          bytes = 0;
        }
        auto* const event = events->Add();
        to_event(received, topic_, event);
        event->set_payload(payload.data(), payload.size());
        if (payload.size() > 2048) outgoing().large = true;
        event->set_ack_token(received.token);
        bytes += payload.size();
        received.message = {};
        ++delivered_;
        delivered_bytes_ += payload.size();
        if (static_cast<std::size_t>(events->size()) >= kFrameEvents) {
          send_events(bytes);
          events = co_await begin_events();
          bytes = 0;
        }
        continue;
      }
      if (!events->empty()) {
        send_events(bytes);
        events = co_await begin_events();
        bytes = 0;
      }
      if (!co_await send_large(batch, i, extended, delivery)) co_return false;
      events = co_await begin_events();
    }
    if (!events->empty()) send_events(bytes);
    co_return !gone();
  }

  // Parts of the sending coroutine, awaited at once: what they refer to stands in its frame.
  // NOLINTBEGIN(cppcoreguidelines-avoid-reference-coroutine-parameters)

  // A payload that is not in memory, or larger than a frame.
  Task<bool> send_large(Batch<Received>& batch, std::size_t i, Clock::time_point& extended, trace::Span& delivery) {
    const Context context = delivery.context(context_);
    Received& received = batch[i];
    Payload payload = std::move(received.message.payload);
    const bool in_one_piece = payload.size() && *payload.size() <= kMaxEventBytes;
    auto piece =
        in_one_piece ? co_await payload.collect(context, kMaxEventBytes) : co_await payload.next(context, kPartBytes);
    if (!piece) delivery.fail(piece.error());
    if (!piece && is_repeat(piece.error())) {
      Batch<Settle> settles;
      settles.push_back({received.token, Settle::Do::ack, {}, {}});
      co_await subscription_->settle(context_.shielded(kCloseGrace), std::move(settles));
      credit_->settled(received.token);
      credit_changed_.notify();
      co_return true;
    }
    auto* event = (co_await begin_events())->Add();
    to_event(received, topic_, event);
    event->set_ack_token(received.token);
    outgoing().large = true;
    std::uint64_t total = 0;
    if (in_one_piece) {
      if (piece) {
        event->set_payload(piece->data(), piece->size());
        total = piece->size();
      } else {
        log_undelivered(context, received, piece.error());
        set_error(event, piece.error());
      }
      send_events(total);
    } else {
      EventBytes at{payload.size()};
      for (bool last = false; !last;) {
        if (!piece) {
          if (call_->cancelled()) co_return false;
          last = true;
          log_undelivered(context, received, piece.error());
          set_error(event, piece.error());
          if (at.offset > 0) {
            set_part(event, at, 0, true);
            event->mutable_part()->clear_crc32c();
          }
        } else {
          at.offset += piece->size();
          at.crc = crc32c(at.crc, piece->view());
          last = piece->empty() || (at.total && at.offset >= *at.total);
          event->set_payload(piece->data(), piece->size());
          set_part(event, at, piece->size(), last);
        }
        send_events(event->payload().size());
        if (gone()) co_return false;
        co_await keep_alive(batch, i, extended);
        if (!last) {
          piece = co_await payload.next(context, kPartBytes);
          if (!piece) delivery.fail(piece.error());
          event = (co_await begin_events())->Add();
          event->set_id(received.message.id);
          outgoing().large = true;
        }
      }
      total = at.offset;
      // The deadline counts from the last part.
      co_await extend(batch, i, i + 1);
    }
    call_->measured().delivered(1, total);
    co_return true;
  }

  // Deliveries that wait here for the client keep their deadline from passing.
  Task<void> keep_alive(const Batch<Received>& batch, std::size_t from, Clock::time_point& extended) {
    if (Clock::now() - extended < ack_deadline_ / 3) co_return;
    extended = Clock::now();
    co_await extend(batch, from, batch.size());
  }
  Task<void> extend(const Batch<Received>& batch, std::size_t from, std::size_t to) {
    Batch<Settle> settles;
    for (std::size_t i = from; i < to; ++i) {
      settles.push_back({batch[i].token, Settle::Do::extend, ack_deadline_, {}});
      credit_->extended(batch[i].token, ack_deadline_);
    }
    co_await subscription_->settle(context_.shielded(kCloseGrace), std::move(settles));
  }

  Task<bool> wait_for_credit(std::size_t size, const Batch<Received>& batch, std::size_t i,
                             Clock::time_point& extended) {
    const Context receive = context_.with_stop(receiving_.get_token());
    while (true) {
      if (receiving_.stop_requested()) co_return false;
      const auto seen = credit_changed_.version();
      if (credit_->fits(size)) co_return true;
      co_await credit_changed_.wait(receive, seen,
                                    std::min<Clock::duration>(credit_->room().until_expiry, ack_deadline_ / 4));
      co_await keep_alive(batch, i, extended);
    }
  }

  bool draining() const { return serving_->calls.draining.stop_requested(); }

  // The server goes down, or the namespace was replaced: no more events, but what is out may still be settled for a
  // while. A server that goes on gives it the time of a delivery.
  Task<void> say_goodbye() {
    const bool shutdown = draining();
    const Clock::duration grace =
        shutdown ? serving_->drain_grace : std::min<Clock::duration>(ack_deadline_, kReplacedGrace);
    co_await begin_events();
    outgoing().message.Clear();
    auto* const closing = outgoing().message.mutable_closing();
    closing->set_reason(shutdown ? "SHUTTING_DOWN" : "NAMESPACE_REPLACED");
    const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(grace).count();
    closing->mutable_grace()->set_seconds(millis / 1000);
    closing->mutable_grace()->set_nanos(static_cast<int>(millis % 1000 * 1'000'000));
    post(outgoing());
    auto until = Clock::now() + grace;
    while (!input_ended() && !gone() && Clock::now() < until) {
      const auto seen = credit_changed_.version();
      if (!shutdown && draining()) until = std::min(until, Clock::now() + serving_->drain_grace);
      if (credit_->nothing_out() || input_ended()) break;
      co_await credit_changed_.wait(context_, seen, std::min<Clock::duration>(until - Clock::now(), grace / 4));
    }
    end(draining() ? shutting_down() : namespace_replaced());
  }

  // The events of the frame that is being made.
  Task<google::protobuf::RepeatedPtrField<pubsub::v1::Event>*> begin_events() {
    Outgoing& out = outgoing();
    co_await free(out);
    if (out.large) {
      out.message = SubscribeStreamResponse();
      out.large = false;
    } else if (out.message.frame_case() == SubscribeStreamResponse::kEvents) {
      out.message.mutable_events()->clear_events();  // keeps the events' memory for the next ones
    } else {
      out.message.Clear();
    }
    co_return out.message.mutable_events()->mutable_events();
  }
  void send_events(std::size_t /*bytes*/) {
    post(outgoing());
    turn_ ^= 1;
    call_->measured().delivered(delivered_, delivered_bytes_);
    delivered_ = 0;
    delivered_bytes_ = 0;
  }
  Outgoing& outgoing() { return events_[turn_]; }
  void release_memory() {
    for (auto& out : events_) {
      const std::lock_guard lock(mutex_);
      if (!out.busy) out.message = SubscribeStreamResponse();
    }
  }

  // --- writer ---
  void post(Outgoing& out) {
    {
      const std::lock_guard lock(mutex_);
      if (gone_) return;
      out.busy = true;
      to_write_.push_back(&out);
    }
    to_write_changed_.set();
  }
  Task<void> free(Outgoing& out) {
    while (true) {
      {
        const std::lock_guard lock(mutex_);
        if (!out.busy) co_return;
      }
      co_await out.free.wait();
    }
  }
  // NOLINTEND(cppcoreguidelines-avoid-reference-coroutine-parameters)

  void producer_ended() {
    {
      const std::lock_guard lock(mutex_);
      --producers_;
    }
    to_write_changed_.set();
  }
  Task<bool> write_stage() {
    while (true) {
      Outgoing* out = nullptr;
      {
        const std::lock_guard lock(mutex_);
        if (!to_write_.empty()) {
          out = to_write_.front();
          to_write_.pop_front();
        } else if (producers_ == 0) {
          break;
        }
      }
      if (out == nullptr) {
        co_await to_write_changed_.wait();
        continue;
      }
      const bool ok = co_await call_->write(out->message);
      std::deque<Outgoing*> dropped;
      {
        const std::lock_guard lock(mutex_);
        out->busy = false;
        if (!ok) {
          gone_ = true;
          dropped.swap(to_write_);
          for (auto* d : dropped) d->busy = false;
        }
      }
      out->free.set();
      for (auto* d : dropped) d->free.set();
    }
    co_return true;
  }

  bool input_ended() {
    const std::lock_guard lock(mutex_);
    return input_ended_;
  }
  bool gone() {
    const std::lock_guard lock(mutex_);
    return gone_;
  }

  SubscribeStreamCall* call_;
  const Serving* serving_;
  Family family_;
  EventLoop& loop_;
  RequestContext request_;
  Deliveries deliveries_;
  Route route_;
  Context context_;
  std::string topic_;
  Clock::duration ack_deadline_{};
  std::unique_ptr<Subscription> subscription_;
  std::optional<Credit> credit_;
  Notifier credit_changed_;
  std::stop_source receiving_;  // requested: no more events
  Signal to_settle_changed_;
  Signal room_;
  Signal to_write_changed_;
  std::array<Outgoing, 2> events_;  // the pump's, used in turn
  std::size_t turn_ = 0;
  std::size_t delivered_ = 0;
  std::size_t delivered_bytes_ = 0;
  Outgoing settled_;  // the settler's
  std::mutex mutex_;
  Batch<Settle> to_settle_;  // guarded by mutex_, as all below
  bool input_ended_ = false;
  std::optional<Error> final_;
  std::deque<Outgoing*> to_write_;
  int producers_ = 2;
  bool gone_ = false;  // the client: no write succeeds
};

}  // namespace

Task<grpc::Status> subscribe_stream(SubscribeStreamCall* call, const Serving* serving, Family family) {
  StreamSubscriber subscriber(call, serving, family);
  co_return co_await subscriber.run();
}

}  // namespace prism::api

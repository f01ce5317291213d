#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "api/errors.h"
#include "api/messaging.h"
#include "base/crc32c.h"
#include "patterns/log_ports.h"

namespace prism::api {
namespace {

using pubsub::v1::PublishBatchRequest;
using pubsub::v1::PublishBatchResponse;
using pubsub::v1::PublishPayloadRequest;
using pubsub::v1::PublishRequest;
using pubsub::v1::PublishResponse;
using pubsub::v1::PublishStreamRequest;
using pubsub::v1::PublishStreamResponse;

Error invalid(std::string reason, std::string message, std::string hint = {}) {
  return {Code::invalid_argument, std::move(reason), std::move(message), std::move(hint), Retry::never, {}, {}};
}

Result<void> check_count(std::size_t n, std::string_view what) {
  if (n == 0) return fail(invalid("EMPTY_BATCH", "there are no " + std::string(what)));
  if (n > kMaxBatch) {
    return fail(invalid("BATCH_TOO_LARGE",
                        "there are " + std::to_string(n) + " " + std::string(what) + "; at most 10000 are allowed"));
  }
  return {};
}

Result<void> check_bytes(std::size_t bytes) {
  if (bytes <= kMaxUnaryBytes) return {};
  return fail(
      invalid("REQUEST_TOO_LARGE",
              "the payloads of this request have " + std::to_string(bytes) + " bytes; at most 4194304 are allowed",
              "send fewer messages at once, and payloads above 4 MiB with PublishPayload"));
}

void put(PublishSet::Outcome&& outcome, pubsub::v1::PublishResult* out) {
  if (outcome.result) {
    to_proto(*outcome.result, std::move(outcome.id), out->mutable_response());
  } else {
    to_proto(outcome.result.error(), out->mutable_error());
  }
}

}  // namespace

Task<grpc::Status> publish(UnaryCall* call, const Serving* serving, Family family, PublishRequest* request,
                           PublishResponse* response) {
  auto context = request_context(call->context(), call->stop(), serving->sessions);
  if (!context) co_return to_status(context.error());
  const bool adopted = begin_request(*context, call->measured().method(), trace_of(request->metadata()), call->trace());
  auto route = serving->router.resolve(context->bound, request->topic());
  if (!route) co_return to_status(route.error());
  call->measured().in(route->namespace_name);
  describe(call->trace(), *route);
  if (auto serves = check_api(*route, family); !serves) co_return to_status(serves.error());
  const std::size_t bytes = request->payload().size();
  if (bytes > kMaxUnaryBytes) {
    co_return to_status(
        invalid("PAYLOAD_TOO_LARGE_FOR_UNARY",
                "the payload has " + std::to_string(bytes) + " bytes; one message takes at most 4194304",
                "send it with PublishPayload, in chunks"));
  }
  auto message = to_message(*request, route->topic, nullptr);
  if (!message) co_return to_status(message.error());
  message->payload = Payload(take_payload(*request, nullptr));
  if (adopted) drop_trace(*message);
  std::string id = message->id;
  call->trace().span.set("messaging.message.id", id);
  Batch<Message> batch;
  batch.push_back(std::move(*message));
  auto results = co_await route->publisher->publish(enter_publish(context->context, *route), std::move(batch));
  if (!results.front()) co_return to_status(results.front().error());
  to_proto(*results.front(), std::move(id), response);
  response->set_topic(route->topic);
  call->measured().published(1, bytes);
  co_return grpc::Status::OK;
}

Task<grpc::Status> publish_batch(UnaryCall* call, const Serving* serving, Family family, PublishBatchRequest* request,
                                 PublishBatchResponse* response) {
  auto context = request_context(call->context(), call->stop(), serving->sessions);
  if (!context) co_return to_status(context.error());
  begin_request(*context, call->measured().method(), std::nullopt, call->trace());
  if (auto ok = check_count(static_cast<std::size_t>(request->messages_size()), "messages"); !ok)
    co_return to_status(ok.error());
  PublishSet set;
  for (auto& message : *request->mutable_messages()) set.add(serving->router, *context, family, message, nullptr);
  if (auto ok = check_bytes(set.bytes()); !ok) co_return to_status(ok.error());
  set.describe(call->trace().span);
  auto outcomes = co_await set.publish(context->context, &call->measured());
  response->mutable_results()->Reserve(static_cast<int>(outcomes.size()));
  for (auto& outcome : outcomes) put(std::move(outcome), response->add_results());
  co_return grpc::Status::OK;
}

namespace {

// Three stages: the reader makes messages of frames, the publisher hands on whatever has come since it last did in one
// call, the writer answers in order. Batches so become as large as the log is slow. Where the chain keeps the order of
// overlapping calls a second publish is under way while the first is being synced; elsewhere (a claim check may upload
// one batch's payloads while the next has none) one at a time keeps the order of the stream.
class StreamPublisher {
 public:
  StreamPublisher(PublishStreamCall* call, const Serving* serving, Family family)
      : call_(call), serving_(serving), family_(family), loop_(serving->runtime.next_loop()) {}

  Task<grpc::Status> run() {
    auto context = request_context(call_->context(), call_->stop(), serving_->sessions);
    if (!context) co_return to_status(context.error());
    request_ = std::move(*context);
    const std::stop_callback on_drain(serving_->calls.draining.get_token(), [this] { call_->release_read(loop_); });
    std::vector<Task<bool>> stages;
    stages.push_back(write_stage());
    stages.push_back(publish_stage());
    stages.push_back(read_stage());
    co_await when_all(std::move(stages));
    if (final_) co_return to_status(*final_);
    if (serving_->calls.draining.stop_requested()) co_return to_status(shutting_down());
    co_return grpc::Status::OK;
  }

 private:
  static constexpr std::size_t kWindowBytes = 2UL
                                              << 20;  // read and not yet handed on, at most (one more frame is allowed)
  static constexpr std::size_t kWindowMessages = 8'192;
  static constexpr std::size_t kUnanswered = 4;  // publishes whose results are not yet written

  Task<bool> read_stage() {
    while (true) {
      auto frame = co_await call_->read();
      if (!frame) break;
      if (auto taken = take(frame); !taken) {
        final_ = std::move(taken).error();
        break;
      }
      frame.reset();
      publish_more_.set();
      while (full()) co_await room_.wait();
    }
    {
      const std::lock_guard lock(mutex_);
      input_ended_ = true;
    }
    publish_more_.set();
    co_return true;
  }

  Result<void> take(const std::shared_ptr<Frame<PublishStreamRequest>>& frame) {
    if (frame->malformed) return fail(request_malformed(frame->message->GetTypeName()));
    PRISM_CHECK(check_count(static_cast<std::size_t>(frame->message->messages_size()), "messages in the frame"));
    PublishSet set;
    for (auto& message : *frame->message->mutable_messages())
      set.add(serving_->router, request_, family_, message, frame);
    PRISM_CHECK(check_bytes(set.bytes()));
    const std::lock_guard lock(mutex_);
    if (waiting_.size() == 0) {
      waiting_ = std::move(set);
    } else {
      waiting_.append(std::move(set));
    }
    return {};
  }

  bool full() {
    const std::lock_guard lock(mutex_);
    return waiting_.bytes() >= kWindowBytes || waiting_.size() >= kWindowMessages;
  }

  Task<bool> publish_stage() {
    Scope publishes;
    std::uint64_t number = 0;
    while (true) {
      PublishSet set;
      bool ended = false;
      {
        const std::lock_guard lock(mutex_);
        if (may_publish()) {
          std::swap(set, waiting_);
          publishing_topic_ = set.ordered_topic();
          ++publishing_;
        }
        ended = input_ended_ && waiting_.size() == 0;
      }
      if (set.size() > 0) {
        room_.set();
        publishes.spawn(publish_one(std::move(set), number++));  // goes on here as soon as the chain has taken it
      } else if (ended) {
        break;
      } else {
        co_await publish_more_.wait();
      }
    }
    co_await publishes.join();
    {
      const std::lock_guard lock(mutex_);
      published_all_ = true;
    }
    answer_more_.set();
    co_return true;
  }

  bool may_publish() const {  // with mutex_
    if (waiting_.size() == 0 || publishing_ + done_.size() >= kUnanswered) return false;
    if (publishing_ == 0) return true;
    if (publishing_ > 1 || settled_topic_.empty()) return false;
    return publishing_topic_ == settled_topic_ && waiting_.ordered_topic() == settled_topic_;
  }

  Task<void> publish_one(PublishSet set, std::uint64_t number) {
    std::string topic = set.ordered_topic();
    Context context;
    trace::Span span = begin_part(request_, call_->measured().method(), context);
    set.describe(span);
    auto outcomes = co_await set.publish(std::move(context), &call_->measured());
    for (const auto& outcome : outcomes) {
      if (!outcome.result) span.fail(outcome.result.error());
    }
    span.end();
    {
      const std::lock_guard lock(mutex_);
      --publishing_;
      settled_topic_ = std::move(topic);
      done_.emplace(number, std::move(outcomes));
    }
    publish_more_.set();
    answer_more_.set();
  }

  Task<bool> write_stage() {
    // Answers are built in two messages in turn: one is being written while the other is made.
    std::array<PublishStreamResponse, 2> responses;
    std::size_t turn = 0;
    bool writing = false;
    std::uint64_t number = 0;
    std::uint64_t sequence = 0;
    while (true) {
      std::vector<PublishSet::Outcome> outcomes;
      bool ended = false;
      {
        const std::lock_guard lock(mutex_);
        if (auto next = done_.extract(number)) {
          outcomes = std::move(next.mapped());
          ++number;
        }
        ended = published_all_ && done_.empty();
      }
      if (outcomes.empty()) {
        if (ended) break;
        co_await answer_more_.wait();
        continue;
      }
      publish_more_.set();
      PublishStreamResponse& response = responses[turn];
      response.Clear();
      response.set_first_sequence(sequence);
      sequence += outcomes.size();
      response.mutable_results()->Reserve(static_cast<int>(outcomes.size()));
      for (auto& outcome : outcomes) put(std::move(outcome), response.add_results());
      if (writing) co_await call_->finish_write();
      call_->begin_write(response);
      writing = true;
      turn ^= 1;
    }
    if (writing) co_await call_->finish_write();
    co_return true;
  }

  PublishStreamCall* call_;
  const Serving* serving_;
  Family family_;
  EventLoop& loop_;
  RequestContext request_;
  std::optional<Error> final_;  // written by the reader, read after it
  Signal room_;                 // for the reader
  Signal publish_more_;         // for the publisher: messages, or room for one more publish, or the end
  Signal answer_more_;          // for the writer
  std::mutex mutex_;
  PublishSet waiting_;  // guarded by mutex_, as all below
  bool input_ended_ = false;
  std::size_t publishing_ = 0;
  std::string publishing_topic_;  // of the last publish that has begun
  // The topic of the last publish that has ended: it is known to the log by now, so that further ones go straight
  // there. Empty: no publish may overlap.
  std::string settled_topic_;
  std::map<std::uint64_t, std::vector<PublishSet::Outcome>> done_;  // by number of the publish
  bool published_all_ = false;
};

}  // namespace

Task<grpc::Status> publish_stream(PublishStreamCall* call, const Serving* serving, Family family) {
  StreamPublisher publisher(call, serving, family);
  co_return co_await publisher.run();
}

namespace {

// What the handler and the source of one upload share. The handler goes on when publish has answered and the source is
// gone.
struct Upload {
  PublishPayloadCall* call;
  const Serving* serving;
  EventLoop& loop;
  std::optional<std::uint64_t> declared;
  std::optional<Error> error;  // of the stream itself; written by the source
  std::uint64_t size = 0;
  Signal source_gone;
};

// Reads chunks, one frame ahead. The end is reported only after a trailer that agrees: whoever stores the payload sees
// an error in its place, and stores nothing.
class UploadSource final : public ByteSource {
 public:
  explicit UploadSource(Upload* upload) : upload_(upload) {}
  ~UploadSource() override { upload_->source_gone.post(upload_->loop); }

  Task<Result<Bytes>> next(Context /*context*/, std::size_t max) override {
    while (left_.empty()) {
      auto frame = co_await upload_->call->finish_read();
      if (!frame) co_return broken(ended_early());
      auto& message = *frame->message;
      if (frame->malformed) co_return broken(request_malformed(message.GetTypeName()));
      switch (message.frame_case()) {
        case PublishPayloadRequest::kChunk: {
          upload_->call->begin_read();
          const std::string_view chunk = message.chunk();
          upload_->size += chunk.size();
          if (upload_->declared && upload_->size > *upload_->declared) {
            co_return broken(
                size_mismatch("more than the header's " + std::to_string(*upload_->declared) + " bytes have come"));
          }
          if (chunk.size() <= kInlineBytes) {
            crc_ = crc32c(crc_, chunk);
          } else {
            crc_ = co_await offload(upload_->serving->runtime.cpu(), upload_->loop, Checksum{crc_, chunk});
          }
          left_ = Bytes(frame, chunk);
          break;
        }
        case PublishPayloadRequest::kTrailer:
          co_return co_await finish(message.trailer().size(), message.trailer().crc32c());
        case PublishPayloadRequest::kHeader:
          co_return broken(out_of_order("a second header came"));
        case PublishPayloadRequest::FRAME_NOT_SET:
          co_return broken(out_of_order("an empty frame came"));
      }
    }
    Bytes out = left_.slice(0, max);
    left_ = left_.slice(out.size());
    co_return out;
  }

 private:
  static constexpr std::size_t kInlineBytes = 1UL << 20;  // about 60 us of CRC
  struct Checksum {
    std::uint32_t crc;
    std::string_view data;
    std::uint32_t operator()() const { return crc32c(crc, data); }
  };

  Task<Result<Bytes>> finish(std::uint64_t size, std::uint32_t crc) {
    if (size != upload_->size || (upload_->declared && *upload_->declared != size)) {
      co_return broken(
          size_mismatch(std::to_string(upload_->size) + " bytes have come, the trailer says " + std::to_string(size) +
                        (upload_->declared ? ", the header " + std::to_string(*upload_->declared) : std::string())));
    }
    if (crc != crc_) {
      co_return broken(invalid("PAYLOAD_CHECKSUM_MISMATCH",
                               "the CRC-32C of what has come is not the trailer's; nothing was published",
                               "send it again; check that the checksum is CRC-32C (Castagnoli)"));
    }
    if (auto after = co_await upload_->call->read()) co_return broken(out_of_order("a frame came after the trailer"));
    if (upload_->call->cancelled()) co_return broken(ended_early());
    co_return Bytes();
  }

  Error ended_early() const {
    if (upload_->call->cancelled()) {
      return {Code::cancelled,
              "CANCELLED",
              "the client went away before the payload was complete; nothing was published",
              "",
              Retry::safe,
              {},
              {}};
    }
    return invalid(
        "PAYLOAD_STREAM_INCOMPLETE",
        "the stream ended after " + std::to_string(upload_->size) + " bytes without a trailer; nothing was published",
        "send a trailer with size and CRC-32C at the end");
  }
  static Error size_mismatch(std::string what) {
    return invalid("PAYLOAD_SIZE_MISMATCH", std::move(what) + "; nothing was published");
  }
  static Error out_of_order(std::string what) {
    return invalid("FRAME_OUT_OF_ORDER", std::move(what), "send one header, then chunks, then one trailer");
  }
  std::unexpected<Error> broken(Error error) const {
    upload_->error = error;
    return fail(std::move(error));
  }

  Upload* upload_;
  Bytes left_;
  std::uint32_t crc_ = 0;
};

}  // namespace

Task<grpc::Status> publish_payload(PublishPayloadCall* call, const Serving* serving, Family family,
                                   PublishResponse* response) {
  auto context = request_context(call->context(), call->stop(), serving->sessions);
  if (!context) co_return to_status(context.error());
  auto first = co_await call->read();
  if (!first) co_return to_status(invalid("PAYLOAD_STREAM_INCOMPLETE", "the stream ended without a header"));
  if (first->malformed) co_return to_status(request_malformed(first->message->GetTypeName()));
  if (!first->message->has_header()) {
    co_return to_status(invalid("FRAME_OUT_OF_ORDER", "the first frame must be a header",
                                "send one header, then chunks, then one trailer"));
  }
  auto& header = *first->message->mutable_header();
  const bool adopted = begin_request(*context, call->measured().method(), trace_of(header.metadata()), call->trace());
  auto route = serving->router.resolve(context->bound, header.topic());
  if (!route) co_return to_status(route.error());
  call->measured().in(route->namespace_name);
  describe(call->trace(), *route);
  if (auto serves = check_api(*route, family); !serves) co_return to_status(serves.error());
  Upload upload{call, serving, serving->runtime.next_loop(), std::nullopt, std::nullopt, 0, {}};
  if (header.has_size()) upload.declared = header.size();
  auto message = to_message(header, route->topic);
  if (!message) co_return to_status(message.error());
  first.reset();
  call->begin_read();
  message->payload = Payload(std::make_unique<UploadSource>(&upload), upload.declared);
  if (adopted) drop_trace(*message);
  std::string id = message->id;
  call->trace().span.set("messaging.message.id", id);
  Batch<Message> batch;
  batch.push_back(std::move(*message));
  auto results = co_await route->publisher->publish(enter_publish(context->context, *route), std::move(batch));
  auto result = std::move(results.front());
  // A backend may still hold the payload after it has answered (a cancelled call): its reads end now.
  if (!result) call->release_read(upload.loop);
  co_await upload.source_gone.wait();
  // What was wrong with the stream itself says more than what the chain makes of it.
  if (!result) co_return to_status(upload.error ? *upload.error : result.error());
  to_proto(*result, std::move(id), response);
  response->set_topic(route->topic);
  call->measured().published(1, upload.size);
  co_return grpc::Status::OK;
}

}  // namespace prism::api

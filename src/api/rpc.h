// Coroutines over gRPC's callback API: one call is one reactor and one coroutine, which runs on gRPC's threads until it
// first suspends and is resumed by whoever completes what it waits for (a loop, or the callback of a read or write).
//
// A call object is shared by two owners, the coroutine and gRPC (until OnDone), and goes with the last. OnCancel only
// requests a stop: the coroutine sees it in its context and by reads and writes that fail, ends, and finishes the call,
// exactly once. gRPC sends every started read and write its completion before OnDone, also after a cancel or a Finish.
#pragma once

#include <google/protobuf/arena.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <memory>
#include <stop_token>
#include <utility>

#include "api/call_metrics.h"
#include "api/errors.h"
#include "api/signal.h"
#include "api/spans.h"
#include "runtime/scope.h"
#include "runtime/stall.h"

namespace prism::api {

// What all calls of one server share; it outlives them.
struct Calls {
  StallDetector& stalls;
  CallMetrics& metrics;
  Scope scope;                // the coroutines of all calls; joined after the gRPC server has shut down
  std::stop_source draining;  // requested at the begin of a shutdown: long streams end in order
};

// A message read from a stream, with everything that it refers to in one arena. Slices of it keep it alive.
template <class Message>
struct Frame {
  google::protobuf::Arena arena{[] {
    google::protobuf::ArenaOptions options;
    options.start_block_size = 2048;
    options.max_block_size = 64 << 10;
    return options;
  }()};
  Message* message = google::protobuf::Arena::CreateMessage<Message>(&arena);
  bool malformed = false;  // what came is no such message; `message` is then not to be used
};

// The request of a call that has only one.
template <class Message>
struct Request {
  Message message;
  bool malformed = false;  // as of a frame
};

template <class Reactor>
class Call : public Reactor {
 public:
  Call(Calls& calls, grpc::CallbackServerContext& context, const Method& method)
      : calls_(calls), context_(context), measured_(calls.metrics, method) {}

  // Runs the body on this thread until it suspends. When it has ended the call is finished with its status; the body
  // must have awaited its writes by then, and must not touch the request, the response or the server context
  // afterwards.
  void start(Task<grpc::Status> body) { calls_.scope.spawn(run(this, std::move(body))); }

  Calls& calls() noexcept { return calls_; }
  grpc::CallbackServerContext& context() noexcept { return context_; }
  std::stop_token stop() const noexcept { return stop_.get_token(); }  // the client went away
  bool cancelled() const noexcept { return stop_.stop_requested(); }
  MeasuredCall& measured() noexcept { return measured_; }
  CallTrace& trace() noexcept { return trace_; }  // ended with the call's status

  void OnCancel() final {
    const StallDetector::Stretch stretch(calls_.stalls);
    stop_.request_stop();
  }
  void OnDone() final { release(); }
  // The reactions above are short and take no lock that a caller may hold: no hop to gRPC's executor.
  bool InternalInlineable() final { return true; }

 protected:
  Calls& calls_;

 private:
  static Task<void> run(Call* self, Task<grpc::Status> body) {
    grpc::Status status = co_await std::move(body);
    // What a call whose client is gone ends with is told to nobody.
    if (self->cancelled()) status = to_status({.code = Code::cancelled, .reason = "CANCELLED"});
    const std::string reason = status.ok() ? std::string() : reason_of(status);
    end_request(self->trace_, self->measured_.method(), status, reason, self->measured_.so_far());
    self->measured_.finish(status.error_code(), reason);
    self->Finish(std::move(status));
    self->release();
  }
  void release() {
    if (owners_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  grpc::CallbackServerContext& context_;
  std::stop_source stop_;
  MeasuredCall measured_;
  CallTrace trace_;
  std::atomic<int> owners_{2};
};

using UnaryCall = Call<grpc::ServerUnaryReactor>;

// One read at a time. begin_read() may run ahead of finish_read() by one: the next frame then arrives meanwhile.
template <class Reactor, class Request>
class ReadingCall : public Reactor {
 public:
  using Reactor::Reactor;

  void begin_read() {
    if (released_.load(std::memory_order_acquire)) return read_done_.set();
    reading_ = std::make_shared<Frame<Request>>();
    this->StartRead(reading_.get());
  }
  // Null: the client sent its last frame, or it went away.
  auto finish_read() noexcept {
    struct Awaiter {
      decltype(std::declval<Signal&>().wait()) done;
      ReadingCall& self;
      bool await_ready() const noexcept { return done.await_ready(); }
      bool await_suspend(std::coroutine_handle<> handle) const noexcept { return done.await_suspend(handle); }
      std::shared_ptr<Frame<Request>> await_resume() const noexcept {
        // Once released, gRPC may still be filling the frame.
        if (self.released_.load(std::memory_order_acquire) || !self.read_ok_) return nullptr;
        return std::move(self.reading_);
      }
    };
    return Awaiter{read_done_.wait(), *this};
  }
  auto read() {
    begin_read();
    return finish_read();
  }
  // Whoever waits for a read gets null, and every later one too, while gRPC may still be reading: the server ends the
  // call by itself. Any thread; the reader goes on on the loop.
  void release_read(EventLoop& loop) {
    released_.store(true, std::memory_order_release);
    read_done_.post(loop);
  }

  void OnReadDone(bool ok) final {
    const StallDetector::Stretch stretch(this->calls_.stalls);
    read_ok_ = ok;
    read_done_.set();
  }

 private:
  std::shared_ptr<Frame<Request>> reading_;
  bool read_ok_ = false;
  std::atomic<bool> released_{false};
  Signal read_done_;
};

// One write at a time. The message must stay as it is until the write is finished, which must be awaited before the
// next begins and before the call ends.
template <class Reactor, class Response>
class WritingCall : public Reactor {
 public:
  using Reactor::Reactor;

  void begin_write(const Response& message) { this->StartWrite(&message); }
  // `co_await` gives false when the client is gone: no later write will succeed.
  auto finish_write() noexcept {
    struct Awaiter {
      decltype(std::declval<Signal&>().wait()) done;
      WritingCall& self;
      bool await_ready() const noexcept { return done.await_ready(); }
      bool await_suspend(std::coroutine_handle<> handle) const noexcept { return done.await_suspend(handle); }
      bool await_resume() const noexcept { return self.write_ok_; }
    };
    return Awaiter{write_done_.wait(), *this};
  }
  auto write(const Response& message) {
    begin_write(message);
    return finish_write();
  }

  void OnWriteDone(bool ok) final {
    const StallDetector::Stretch stretch(this->calls_.stalls);
    write_ok_ = ok;
    write_done_.set();
  }

 private:
  bool write_ok_ = false;
  Signal write_done_;
};

template <class Request>
using ClientStream = ReadingCall<Call<grpc::ServerReadReactor<Frame<Request>>>, Request>;
template <class Response>
using ServerStream = WritingCall<Call<grpc::ServerWriteReactor<Response>>, Response>;
template <class Request, class Response>
using BidiStream = ReadingCall<WritingCall<Call<grpc::ServerBidiReactor<Frame<Request>, Response>>, Response>, Request>;

}  // namespace prism::api

// Of bytes that are no message (or whose texts are not UTF-8) gRPC tells a stream only that no more comes, as if the
// client had ended its side, and answers a unary call UNIMPLEMENTED. Here they arrive as `malformed`.
template <class Message>
class grpc::SerializationTraits<prism::api::Frame<Message>> {
 public:
  static Status Deserialize(ByteBuffer* buffer, prism::api::Frame<Message>* frame) {
    frame->malformed = !SerializationTraits<Message>::Deserialize(buffer, frame->message).ok();
    return Status::OK;
  }
};
template <class Message>
class grpc::SerializationTraits<prism::api::Request<Message>> {
 public:
  static Status Deserialize(ByteBuffer* buffer, prism::api::Request<Message>* request) {
    request->malformed = !SerializationTraits<Message>::Deserialize(buffer, &request->message).ok();
    return Status::OK;
  }
};

// What is measured of every call.
#pragma once

#include <grpcpp/support/status.h>

#include <atomic>
#include <string_view>

#include "base/types.h"

namespace prism::api {

// A method of the contract that is built; all of them are listed in methods.h. Static.
struct Method {
  std::string_view service;  // "prism.pubsub.v1.PubSubService"
  std::string_view name;     // "Publish"
  std::size_t index = 0;     // in the list
};

// Of the calls about one namespace. Thread-safe, quick: called on gRPC's threads and on loops.
class NamespaceCalls {
 public:
  virtual ~NamespaceCalls() = default;
  // `reason`: of an error's details; empty where there is none.
  virtual void finished(const Method& method, grpc::StatusCode code, std::string_view reason,
                        Clock::duration took) noexcept = 0;
  // Messages that a call has published or delivered; bytes of their payloads.
  virtual void published(const Method& method, std::size_t messages, std::size_t bytes) noexcept = 0;
  virtual void delivered(const Method& method, std::size_t messages, std::size_t bytes) noexcept = 0;
  // A message of a batch or stream that was refused.
  virtual void refused(const Method& method, std::string_view reason) noexcept = 0;
};

// Thread-safe, as above.
class CallMetrics {
 public:
  virtual ~CallMetrics() = default;
  virtual void started(const Method& method) noexcept = 0;
  virtual void ended(const Method& method) noexcept = 0;
  // Lives as long as this. The name is one of the configuration; empty: calls about no namespace, or one that does not
  // exist.
  virtual NamespaceCalls& of(std::string_view namespace_name) noexcept = 0;
};

// Measures nothing.
class NoCallMetrics final : public CallMetrics, public NamespaceCalls {
 public:
  void started(const Method& /*method*/) noexcept override {}
  void ended(const Method& /*method*/) noexcept override {}
  NamespaceCalls& of(std::string_view /*namespace_name*/) noexcept override { return *this; }
  void finished(const Method& /*method*/, grpc::StatusCode /*code*/, std::string_view /*reason*/,
                Clock::duration /*took*/) noexcept override {}
  void published(const Method& /*method*/, std::size_t /*messages*/, std::size_t /*bytes*/) noexcept override {}
  void delivered(const Method& /*method*/, std::size_t /*messages*/, std::size_t /*bytes*/) noexcept override {}
  void refused(const Method& /*method*/, std::string_view /*reason*/) noexcept override {}
};

class MeasuredCall {
 public:
  MeasuredCall(CallMetrics& metrics, const Method& method) noexcept : metrics_(metrics), method_(method) {
    metrics_.started(method_);
  }
  // From now on the call counts for this namespace. One about several counts for the last.
  NamespaceCalls& in(std::string_view namespace_name) noexcept {
    NamespaceCalls& calls = metrics_.of(namespace_name);
    calls_.store(&calls, std::memory_order_relaxed);
    return calls;
  }
  const Method& method() const noexcept { return method_; }
  Clock::duration so_far() const noexcept { return Clock::now() - begun_; }
  void finish(grpc::StatusCode code, std::string_view reason) noexcept {
    calls().finished(method_, code, reason, Clock::now() - begun_);
    metrics_.ended(method_);  // what is not under way any more has been counted
  }
  void published(std::size_t messages, std::size_t bytes) noexcept { calls().published(method_, messages, bytes); }
  void delivered(std::size_t messages, std::size_t bytes) noexcept { calls().delivered(method_, messages, bytes); }
  void refused(std::string_view reason) noexcept { calls().refused(method_, reason); }

 private:
  NamespaceCalls& calls() noexcept {
    auto* const calls = calls_.load(std::memory_order_relaxed);
    return calls != nullptr ? *calls : metrics_.of({});
  }
  CallMetrics& metrics_;
  const Method& method_;
  std::atomic<NamespaceCalls*> calls_{nullptr};
  const Clock::time_point begun_ = Clock::now();
};

}  // namespace prism::api

// A bare callback server: bench_echo_server ADDRESS FOLDER. Prints its port, serves until its input ends.
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "bench/echo.grpc.pb.h"

namespace {

using prism::pubsub::v1::PublishPayloadRequest;
using prism::pubsub::v1::PublishRequest;
using prism::pubsub::v1::PublishResponse;
using prism::pubsub::v1::PublishStreamRequest;

class EchoStream final : public grpc::ServerBidiReactor<PublishStreamRequest, PublishStreamRequest> {
 public:
  EchoStream() { StartRead(&frame_); }
  void OnReadDone(bool ok) override {
    if (ok) {
      StartWrite(&frame_);
    } else {
      Finish(grpc::Status::OK);
    }
  }
  void OnWriteDone(bool ok) override {
    if (ok) {
      StartRead(&frame_);
    } else {
      Finish(grpc::Status::CANCELLED);
    }
  }
  void OnDone() override { delete this; }

 private:
  PublishStreamRequest frame_;
};

class EchoUpload final : public grpc::ServerReadReactor<PublishPayloadRequest> {
 public:
  EchoUpload(std::string path, PublishResponse* response) : path_(std::move(path)), response_(response) {
    fd_ = open(path_.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    StartRead(&frame_);
  }
  ~EchoUpload() override {
    close(fd_);
    unlink(path_.c_str());
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      const bool synced = fdatasync(fd_) == 0;
      response_->set_success(synced);
      Finish(synced ? grpc::Status::OK : grpc::Status(grpc::StatusCode::INTERNAL, "cannot sync"));
      return;
    }
    const std::string& chunk = frame_.chunk();
    for (std::size_t done = 0; done < chunk.size();) {
      const ssize_t n = write(fd_, chunk.data() + done, chunk.size() - done);
      if (n <= 0) std::abort();
      done += static_cast<std::size_t>(n);
    }
    StartRead(&frame_);
  }
  void OnDone() override { delete this; }

 private:
  std::string path_;
  PublishResponse* response_;
  int fd_ = -1;
  PublishPayloadRequest frame_;
};

class EchoService final : public prism::bench::Echo::CallbackService {
 public:
  explicit EchoService(std::string folder) : folder_(std::move(folder)) {}
  grpc::ServerUnaryReactor* Publish(grpc::CallbackServerContext* context, const PublishRequest* request,
                                    PublishRequest* response) override {
    *response = *request;
    auto* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  grpc::ServerBidiReactor<PublishStreamRequest, PublishStreamRequest>* PublishStream(
      grpc::CallbackServerContext* /*context*/) override {
    return new EchoStream;
  }
  grpc::ServerReadReactor<PublishPayloadRequest>* PublishPayload(grpc::CallbackServerContext* /*context*/,
                                                                 PublishResponse* response) override {
    return new EchoUpload(folder_ + "/upload-" + std::to_string(uploads_++), response);
  }

 private:
  std::string folder_;
  std::atomic<int> uploads_{0};
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: bench_echo_server ADDRESS FOLDER\n";
    return 2;
  }
  EchoService service(argv[2]);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(argv[1], grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  builder.SetMaxReceiveMessageSize(-1);
  auto server = builder.BuildAndStart();
  if (server == nullptr || port == 0) return 1;
  std::cout << port << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
  }
  server->Shutdown(std::chrono::system_clock::now());
}

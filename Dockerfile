FROM python:3.13-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --require-hashes --requirement requirements.txt
COPY order_engine order_engine
RUN useradd --system --create-home --home-dir /var/lib/order-engine order-engine
USER order-engine
WORKDIR /var/lib/order-engine
ENTRYPOINT ["python", "-m", "order_engine"]

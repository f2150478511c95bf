# A relay in a container: a user without rights, a read-only root, one volume.

FROM node:24-slim AS build
USER node
WORKDIR /home/node/knothole
COPY --chown=node:node package.json package-lock.json .npmrc tsconfig.json ./
RUN npm ci
COPY --chown=node:node protocol ./protocol
COPY --chown=node:node client ./client
COPY --chown=node:node server ./server
RUN npm run build && npm prune --omit=dev

FROM node:24-slim
# Open to whichever user the container is started as; the relay makes a folder of its own in it, for
# itself alone.
RUN mkdir -m 1777 /data
WORKDIR /knothole
COPY package.json LICENSE ./
COPY --from=build /home/node/knothole/node_modules ./node_modules
COPY --from=build /home/node/knothole/dist ./dist
ENV NODE_ENV=production
ENV KNOTHOLE_DATA=/data/relay
# Only the container's own network; a relay reached from elsewhere asks for KNOTHOLE_PUBLIC_URL.
ENV KNOTHOLE_LISTEN=0.0.0.0:8787
USER node
VOLUME /data
EXPOSE 8787
# By its own socket, wherever and however it listens, found by the same environment.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["node", "dist/client/main.cjs", "relay", "status"]
CMD ["node", "dist/client/main.cjs", "relay"]
